"""The third stage: the generation expert learns on simulated targets where parcels are and how far they have moved.

From the errors of imagined latents it learns motion slowly: most of a picture stays as it is. Here it is shown a view half a second ago and
now, and asked, by what its tokens hand on to the action expert, for each parcel in either picture: where it is, and where in the other one.
Both pictures are moved by chance, each by itself, so that no speed can be told by what an episode looks like.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from internvla_a1_ros.learning.stages_loop import Numbers
from internvla_a1_ros.learning.stages_pictures import Gallery, Shown
from internvla_a1_ros.learning.training import generator
from internvla_a1_ros.learning.warmup import AT_ONCE, MEASURED, Head, SeenRecipe, errors, lit, seen_in
from internvla_a1_ros.learning.warmup_targets import CHANNELS, MOVED, followed, found, laid_out
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.sizes import FRAMES, Architecture
from internvla_a1_ros.model.text import additive, rotary_tables
from internvla_a1_ros.policy.pictures import cosmos_input

GENERATION, HEAD = "generation.", "motion."
MOVED_WEIGHT = 4.0


class MotionRecipe(SeenRecipe):
    """`apart`: how many stills lie between the two pictures, `every` steps each; `batch` counts pairs."""

    stage: Literal["motion"]
    apart: Annotated[int, Field(ge=1)] = 3


class Motion:
    """Teaches the generation expert of a model and a head of its own. It sees one view at a time and no prefix."""

    def __init__(self, recipe: MotionRecipe, model: InternVLAA1, gallery: Gallery) -> None:
        """Raises ConfigurationError where a dataset does not say what is seen in its pictures."""
        sizes = model.sizes
        self._recipe, self._model, self._gallery = recipe, model, gallery
        self._grid = (sizes.latent_grid[0] // sizes.latent_stride, sizes.latent_grid[1] // sizes.latent_stride)
        self._cells = (self._grid[0] * recipe.cells, self._grid[1] * recipe.cells)
        self._seen = [seen_in(gallery, i, sizes.views) for i in range(len(gallery.stills))]
        channels = len(CHANNELS) + len(MOVED)
        self._head = Head(sizes.generation.hidden, self._grid, recipe.cells, generator(recipe.seed, 1), channels)
        self.weights = {name: weight for name, weight in model.named_parameters() if name.startswith(reached(sizes))}
        self.weights |= {f"{HEAD}{name}": weight for name, weight in self._head.named_parameters()}

    def loss(self, shown: Shown, draw: torch.Generator) -> tuple[Tensor, Numbers]:
        most, count = self._recipe.shift_px, len(shown.pictures)
        shifts = torch.randint(-most, most + 1, (FRAMES, 2, count), generator=draw)
        light = lit(self._recipe, count, draw)
        answers, targets = self._asked(shown, shifts, light)
        objects, rest = errors(answers[..., : len(CHANNELS)], targets[..., : len(CHANNELS)])
        there = targets[..., -3]
        off = (answers[..., -2:] - targets[..., -2:]).abs().sum(-1) * there
        moved = MOVED_WEIGHT * off.sum() / there.sum().clamp(min=1)
        told = {"objects": float(objects.detach()), "rest": float(rest.detach()), "moved": float(moved.detach())}
        return objects + rest + moved, told

    @torch.no_grad()
    def measured(self) -> Numbers:
        """Medians over parcels found in pairs that are kept back; pixels of the model's picture, in which nothing but the parcels moves."""
        shown = self._gallery.some(MEASURED // FRAMES, kept_back=True)
        made = []
        for first in range(0, len(shown.pictures), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            some = Shown(shown.pictures[rows], shown.boxes[rows], shown.origin[rows])
            still = torch.zeros(FRAMES, 2, len(some.pictures), dtype=torch.long)
            made.append(self._asked(some, still, torch.ones(())))
        answers, targets = (torch.cat([each[i] for each in made]) for i in range(2))
        plain = slice(None, len(CHANNELS))
        return found(answers[..., plain], targets[..., plain], self._model.sizes.picture) | followed(answers, targets)

    def finished(self) -> dict[str, Tensor]:
        return {}

    def _asked(self, shown: Shown, shifts: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        """Answers and targets [2 B, rows, columns, 15] of each picture and the one before it, moved by `shifts` [2, 2, B] (down, right)."""
        both = (self._gallery.before(shown, self._recipe.apart), shown)
        moved = [each.shifted(down, right) * light for each, (down, right) in zip(both, shifts, strict=True)]
        seen = [np.stack([self._seen[dataset][number, view] for dataset, number, view in each.origin]) for each in both]
        targets = []
        for i in range(FRAMES):
            other = (seen[1 - i], shifts[1 - i, 0], shifts[1 - i, 1])
            targets.append(laid_out(seen[i], both[i].boxes, shifts[i, 0], shifts[i, 1], self._model.sizes.picture, self._cells, other))
        return self._answers(torch.stack(moved, 1).clamp(0, 1)), torch.stack(targets, 1).flatten(0, 1)

    def _answers(self, pictures: Tensor) -> Tensor:
        """Answers [2 B, rows, columns, 15] for pictures [B, 2 (past, now), 3, h, w] in [0, 1]."""
        model, sizes = self._model, self._model.sizes
        with torch.no_grad():
            latents = model.encode(cosmos_input(pictures.flatten(0, 1), sizes)).float()
        tokens = model.embed_generation(latents.reshape(-1, 1, FRAMES, *latents.shape[1:]))
        count = tokens.shape[1]
        cos, sin = rotary_tables(torch.arange(count).expand(3, 1, -1), sizes.expert_rope, sizes.generation.head_dim)
        valid = torch.ones(len(tokens), count, dtype=torch.bool)
        _, entering = model.generation.run(tokens, cos, sin, valid, additive(valid[:, None], model.dtype), None)
        answers: Tensor = self._head(entering.reshape(len(pictures) * FRAMES, -1, entering.shape[2]))
        return answers.float()


def reached(sizes: Architecture) -> tuple[str, ...]:
    """Names of what the answers depend on begin so: the last layer is gone into as far as its keys and values, which they do not reach."""
    return ("cosmos_in_proj.", "downsample_conv.", *(f"{GENERATION}layers.{i}." for i in range(sizes.generation.layers - 1)))
