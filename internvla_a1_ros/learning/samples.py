"""From datasets to batches: a drawn frame becomes pictures past, now and future, state, a chunk of actions and an instruction.

Past and future lie `past_s` back and `ahead_s` ahead by the dataset's own rate; beyond an episode's ends its first or last frame stands
in, and its last action is repeated. Pictures, numbers and words take the policy's own way (`policy/`), so what is learned is what is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.bags.datasets import Episode
from internvla_a1_ros.learning.material import Material, Told, Transforms, chunk_from
from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.motion import CHANNELS, displaced
from internvla_a1_ros.model.flow import TrainingBatch
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.sizes import Architecture, Pair
from internvla_a1_ros.policy.pictures import cosmos_input, model_picture, patches
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer


class Pictures(Protocol):
    """Where the pictures of one dataset come from."""

    def at(self, number: int, steps: Sequence[int]) -> Tensor:
        """Pictures [len(steps), V, 3, h, w] in [0, 1] of steps of the episode at place `number`; a missing view is black."""
        ...

    def latents(self, number: int, steps: Sequence[int]) -> Tensor | None:
        """Cosmos latents [V, len(steps), z, lh, lw] where they are known."""
        ...

    def seen(self, number: int, step: int) -> Tensor | None:
        """What the vision tower says of a step's pictures [V, T, h], where it stays as it is and that is kept."""
        ...


class Decoded:
    """Pictures decoded from the dataset whenever they are asked for: exact, and slow."""

    def __init__(self, material: Material, sizes: Architecture) -> None:
        self._material, self._sizes = material, sizes

    def at(self, number: int, steps: Sequence[int]) -> Tensor:
        return decoded(self._material.episodes[number], self._material.cameras, steps, self._sizes)

    def latents(self, number: int, steps: Sequence[int]) -> Tensor | None:
        return None

    def seen(self, number: int, step: int) -> Tensor | None:
        return None


def decoded(episode: Episode, cameras: Sequence[str | None], steps: Sequence[int], sizes: Architecture) -> Tensor:
    """Pictures [len(steps), V, 3, h, w] in [0, 1] of an episode. Raises DatasetError where one cannot be decoded."""
    shown = torch.zeros(len(steps), len(cameras), 3, *sizes.picture)
    wanted = sorted(set(steps))
    for view, camera in enumerate(cameras):
        if camera is not None:
            for step, rgb in zip(wanted, episode.frames(camera, wanted), strict=True):
                picture = model_picture(rgb, sizes.picture)
                for i in (i for i, asked in enumerate(steps) if asked == step):
                    shown[i, view] = picture
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One row of a batch. `inside` [H]: 1 where a step of the chunk lies inside the episode; `known` [H]: 1 where it is labelled.

    `foreseeable`: whether nobody else has the arms before the future picture. `pixels` are empty where `seen` stands for them.
    `displaced` [V, rows, columns, 3]: how far parcels have come since the past frame (`learning.motion`), where that is asked for.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    views: Tensor
    latents: Tensor
    state: Tensor
    actions: Tensor
    known: Tensor
    inside: Tensor
    foreseeable: Tensor
    seen: Tensor | None = None
    displaced: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`inputs` as the losses read them; `known` [B, H]: steps that are labelled; `inside` [B, H]: those before the episode's end.

    `displaced` [B, V, rows, columns, 3], as in a sample.
    """

    inputs: TrainingBatch
    known: Tensor
    inside: Tensor
    displaced: Tensor | None = None

    @property
    def parcels(self) -> float:
        """Of how many it is known how far they have come."""
        return 0.0 if self.displaced is None else float(self.displaced[..., 0].sum())


class Samples:
    """Makes batches of draws from several datasets."""

    def __init__(
        self,
        model: InternVLAA1,
        tokenizer: PrefixTokenizer,
        materials: Sequence[Material],
        pictures: Sequence[Pictures],
        past_s: float,
        ahead_s: float,
    ) -> None:
        """`model` encodes what latents are not known; only its frozen encoder is used."""
        self._model, self._tokenizer, self._away_s = model, tokenizer, (past_s, ahead_s)
        self._pictures, self.materials = tuple(pictures), tuple(materials)
        self._starts = [material.starts for material in self.materials]
        self._parcels = any(material.knows_parcels for material in self.materials)

    def place(self, draw: Draw) -> tuple[int, int]:
        """Return the place of the drawn frame's episode, and its step."""
        starts = self._starts[draw.dataset]
        number = int(np.searchsorted(starts, draw.frame, side="right")) - 1
        return number, int(self.materials[draw.dataset].steps(number)[draw.frame - int(starts[number])])

    def name(self, draw: Draw) -> dict[str, int | str]:
        """Say which frame it is."""
        number, step = self.place(draw)
        material = self.materials[draw.dataset]
        return {"dataset": str(material.dataset.folder), "episode": material.episodes[number].index, "step": step}

    def sample(self, draw: Draw, moved: Tensor | None = None) -> Sample:
        """Make one sample; `moved` [V, 2]: by how many pixels (right, down) what the understanding expert sees is moved in each view."""
        number, step = self.place(draw)
        material, sizes = self.materials[draw.dataset], self._model.sizes
        told = material.told[number]
        back, ahead = material.away(*self._away_s)
        steps = (max(0, step - back), step, min(material.shown(number)[-1], step + ahead))
        source = self._pictures[draw.dataset]
        latents, seen, pixels = source.latents(number, steps), source.seen(number, step), torch.empty(0)
        if latents is None:
            shown = source.at(number, steps)
            latents, now = encoded(self._model, shown).transpose(0, 1), shown[1:2]
        elif seen is None:
            now = source.at(number, steps[1:2])
        if seen is None:
            pixels = patches(now[0] if moved is None else shifted(now[0], moved), sizes)
        views = np.array([camera is not None for camera in material.cameras])
        words = self._tokenizer(told.tasks[step], views)
        state, actions, known, inside = numbers(told, material.transforms, step, sizes)
        return Sample(
            pixels=pixels,
            ids=torch.from_numpy(words.input_ids),
            mask=torch.from_numpy(words.attention_mask),
            views=torch.from_numpy(views),
            latents=latents,
            state=state,
            actions=actions,
            known=known,
            inside=inside,
            foreseeable=torch.tensor(steps[2] < told.own_until[step]),
            seen=seen,
            displaced=self._displaced(told, steps[0], step, views),
        )

    def _displaced(self, told: Told, before: int, step: int, views: npt.NDArray[np.bool_]) -> Tensor | None:
        if not self._parcels:
            return None
        grid = self._model.sizes.generation_grid
        if told.seen is None:  # another dataset says it
            return torch.zeros(len(views), *grid, len(CHANNELS))
        return displaced(told.seen[before], told.seen[step], views, grid)

    @staticmethod
    def stacked(rows: Sequence[Sample], grid: Pair) -> Batch:
        """Return samples as one batch."""
        parts = {each.name: [getattr(row, each.name) for row in rows] for each in fields(Sample)}
        inputs = TrainingBatch(
            pixel_values=torch.stack(parts["pixels"]),
            grid=grid,
            input_ids=torch.stack(parts["ids"]),
            attention_mask=torch.stack(parts["mask"]),
            view_mask=torch.stack(parts["views"]),
            latents=torch.stack(parts["latents"]),
            state=torch.stack(parts["state"]),
            actions=torch.stack(parts["actions"]),
            seen=None if parts["seen"][0] is None else torch.stack(parts["seen"]),
            foreseeable=torch.stack(parts["foreseeable"]),
        )
        way = None if parts["displaced"][0] is None else torch.stack(parts["displaced"])
        return Batch(inputs, torch.stack(parts["known"]), torch.stack(parts["inside"]), way)


def numbers(told: Told, transforms: Transforms | None, step: int, sizes: Architecture) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """State [D], actions [H, D] in model units from `step` on, which of them are labelled [H] and which lie inside the episode [H].

    Zeros for video alone. What follows once somebody else has the arms is not what was wanted at `step`.
    """
    wanted, until = step + np.arange(sizes.chunk), int(told.until[step])
    inside = torch.from_numpy(wanted < len(told.action)).float()
    if transforms is None:
        nothing = torch.zeros(sizes.chunk)
        return torch.zeros(sizes.state_width), torch.zeros(sizes.chunk, sizes.action_width), nothing, inside
    chunk = chunk_from(told, step, sizes.chunk, until)
    state = transforms.state.forward(told.state[step])
    actions = torch.from_numpy(transforms.action.forward(chunk, told.state[step])).float()
    return torch.from_numpy(state).float(), actions, torch.from_numpy(wanted < until).float(), inside


def shifted(pictures: Tensor, moved: Tensor) -> Tensor:
    """Pictures [V, 3, h, w] each moved by `moved` [V, 2] pixels (right, down); what comes in at the sides repeats the last pixel."""
    far, (height, width) = int(moved.abs().max()), pictures.shape[-2:]
    if far == 0:
        return pictures
    wide = F.pad(pictures, (far, far, far, far), mode="replicate")
    cuts = [(far - int(down), far - int(right)) for right, down in moved]
    return torch.stack([view[:, top : top + height, left : left + width] for view, (top, left) in zip(wide, cuts, strict=True)])


@torch.no_grad()
def encoded(model: InternVLAA1, pictures: Tensor) -> Tensor:
    """Cosmos latents [N, V, z, lh, lw] of pictures [N, V, 3, h, w] in [0, 1]."""
    device = next(model.cosmos.parameters()).device
    latents = model.encode(cosmos_input(pictures.flatten(0, 1), model.sizes).to(device)).cpu()
    return latents.reshape(*pictures.shape[:2], *latents.shape[1:])


@torch.no_grad()
def told_by_tower(model: InternVLAA1, pictures: Tensor) -> Tensor:
    """What the vision tower says [N, V, T, h] of pictures [N, V, 3, h, w] in [0, 1]."""
    tower = model.understanding.vision
    device = next(tower.parameters()).device
    seen = torch.stack([patches(some, model.sizes) for some in pictures]).to(device)
    return model.seen(seen, model.sizes.grid).cpu()
