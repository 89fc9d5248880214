"""The loop: samples, losses, gradients, weights, step by step, and the same again from any saved step on.

All that is random in step k (noise, flow times) is drawn from the seed and k; which samples it sees is the samplers' state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic_core import to_jsonable_python
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from internvla_a1_ros.bags.datasets import DatasetError
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.checkpoints import MOMENTS, Snapshot, need_same, way_on
from internvla_a1_ros.learning.mixture import Draw, Sampler
from internvla_a1_ros.learning.motion import READOUT, Readout
from internvla_a1_ros.learning.optimiser import Group, Optimiser
from internvla_a1_ros.learning.recipe import CHANGEABLE, MOVABLE, TOWER, Recipe, moves
from internvla_a1_ros.learning.samples import Batch, Sample, Samples
from internvla_a1_ros.learning.schedule import flow_times, follow
from internvla_a1_ros.learning.sharding import dealt, norm_of
from internvla_a1_ros.learning.team import ALONE, Team
from internvla_a1_ros.model.checkpoint import empty_model
from internvla_a1_ros.model.flow import TrainingBatch
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.text import Layer
from internvla_a1_ros.model.vision import VisionBlock
from internvla_a1_ros.model.vision_internvl import VisionLayer
from internvla_a1_ros.model.writing import save_tensors
from internvla_a1_ros.robots.document import Document

Number = TypeVar("Number", float, Tensor)
_SKIPS = 100  # samples in a row that may fail to decode before it is the data's fault


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step: losses are means over its samples; `seconds` it took, of which `data_s` went into samples."""

    step: int
    loss: float
    action: float
    generation: float
    motion: float
    rate: float
    gradient: float
    seconds: float
    data_s: float


class Trainer:
    """A model, its optimiser and the samplers it is taught from. Belongs to one thread.

    `undecoded`: by dataset and place of an episode, how many of its samples could not be decoded, and why the first could not.
    """

    def __init__(self, recipe: Recipe, model: InternVLAA1, samples: Samples, samplers: Sequence[Sampler], team: Team = ALONE) -> None:
        """Raises ConfigurationError where a batch cannot be dealt evenly to the processes of `team`."""
        need_even(recipe, team)
        self.recipe, self.model, self.samples, self.team = recipe, model, samples, team
        self.samplers = tuple(samplers)
        self.step = 0
        self.undecoded: dict[tuple[int, int], tuple[int, str]] = {}
        for name, weight in model.named_parameters():
            weight.requires_grad_(moves(name, recipe.freeze))
        if recipe.gradient_checkpointing:
            keep_no_insides(model)
        readout = Readout(model.sizes) if recipe.motion else None
        self._errors = team.taught(model, readout)
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if readout is not None:
            self.weights |= {f"{READOUT}{name}": weight for name, weight in readout.named_parameters()}
        self.mean = None if recipe.ema is None else {name: weight.detach().clone() for name, weight in self.weights.items()}
        tower = {name: weight for name, weight in self.weights.items() if name.startswith(TOWER)}
        rest = {name: weight for name, weight in self.weights.items() if name not in tower}
        groups = (Group(rest, 1.0, recipe.weight_decay), Group(tower, recipe.vision_rate, recipe.weight_decay))
        self._optimiser = Optimiser(groups, recipe.optimiser, recipe.betas, recipe.eps, team)

    # ---- one step ------------------------------------------------------------------------------------------------------

    def advance(self) -> StepReport:
        """Do one step. Raises ConfigurationError where the loss or its gradient is not finite: the batch is then written down."""
        recipe, began = self.recipe, time.perf_counter()
        sizes, draw, count = self.model.sizes, generator(recipe.seed, self.step), recipe.samples_a_step
        noise = torch.randn(count, recipe.draws, sizes.chunk, sizes.action_width, generator=draw)
        times = flow_times(count * recipe.draws, draw).view(count, recipe.draws)
        if recipe.from_mean:
            still = torch.rand(count, recipe.draws, generator=draw) < recipe.from_mean
            times[still], noise[still] = 1.0, 0.0
        far = recipe.shift_px
        moved = torch.randint(-far, far + 1, (count, sizes.views, 2), generator=draw) if far else None
        drawn = [self._drawn(i * recipe.batch, moved) for i in range(recipe.accumulation)]
        batches = [batch for batch, _ in drawn]
        data_s = time.perf_counter() - began

        rate = recipe.schedule.rate(self.step)
        self._optimiser.clear()
        shares = Shares.of(batches, recipe.mask_padding, self.team)
        losses = [0.0, 0.0, 0.0]
        for i, batch in enumerate(batches):
            mine = list(self.team.mine(i * recipe.batch, recipe.batch))
            with self.team.part(self._errors, last=i + 1 == len(batches)):
                with self._precision():
                    parts = self.loss(batch, noise[mine].flatten(0, 1), times[mine].flatten(), shares)
                self.team.backward(self._total(*parts))
            losses = [before + part.item() for before, part in zip(losses, parts, strict=True)]
        action, generation, motion = self.team.total(*losses)
        if not math.isfinite(action + generation + motion):
            raise ConfigurationError(self._written_down(drawn, (action, generation, motion), "loss"))
        gradient = norm_of(torch.nn.utils.clip_grad_norm_(self.weights.values(), recipe.clip))
        if not math.isfinite(gradient):
            raise ConfigurationError(self._written_down(drawn, (action, generation, motion), "gradient"))
        self._optimiser.step(rate)
        if self.mean is not None and recipe.ema is not None:
            follow(self.mean, self.weights, recipe.ema, self.step)
        self.step += 1
        total, seconds = self._total(action, generation, motion), time.perf_counter() - began
        return StepReport(self.step, total, action, generation, motion, rate, gradient, seconds, data_s)

    def _total(self, action: Number, generation: Number, motion: Number) -> Number:
        return action + self.model.sizes.lambda_generation * generation + self.recipe.motion * motion

    def loss(self, batch: Batch, noise: Tensor, times: Tensor, shares: Shares) -> tuple[Tensor, Tensor, Tensor]:
        """This batch's part of the losses of the whole step (action, future, motion): parts of all its batches add up to their means."""
        device = self.team.device
        displaced = None if batch.displaced is None else batch.displaced.to(device)
        errors, generation, motion = self._errors(placed(batch.inputs, device), noise.to(device), times.to(device), displaced)
        squares = errors[..., : self.model.sizes.robot_width].mean(-1)
        counts = shares.counts(batch).to(device).repeat_interleave(self.recipe.draws, 0)
        action = (squares * counts).sum() / max(shares.actions * self.recipe.draws, 1.0)
        generation = generation * (float(batch.inputs.imagined.sum()) / max(shares.views, 1.0))
        return action, generation, motion * (batch.parcels / max(shares.parcels, 1.0))

    def _drawn(self, first: int, moved: Tensor | None = None) -> tuple[Batch, list[Draw]]:
        """Draw this process's rows of a batch. Every process draws all of them, so that all know where the samplers are."""
        rows: list[Draw] = []
        made = []
        mine = self.team.mine(first, self.recipe.batch)
        for row in range(first, first + self.recipe.batch):
            sampler = self.samplers[(self.step * self.recipe.samples_a_step + row) % len(self.samplers)]
            if row in mine:
                draw, sample = self._decodable(sampler, None if moved is None else moved[row])
                rows.append(draw)
                made.append(sample)
            else:
                sampler.draw()
        return Samples.stacked(made, self.model.sizes.grid), rows

    def _decodable(self, sampler: Sampler, moved: Tensor | None) -> tuple[Draw, Sample]:
        """Draw until a sample decodes. One that does not is counted; in several processes, which would lose step, it is an error."""
        for _ in range(_SKIPS):
            draw = sampler.draw()
            try:
                return draw, self.samples.sample(draw, moved)
            except DatasetError as problem:
                if self.team.size > 1:
                    raise ConfigurationError(f"{problem}; several processes need a `cache`, which finds it before") from None
                last = problem
                episode = draw.dataset, self.samples.place(draw)[0]
                count, why = self.undecoded.get(episode, (0, str(problem)))
                self.undecoded[episode] = count + 1, why
        raise ConfigurationError(f"{_SKIPS} samples in a row cannot be decoded, the last: {last}")

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.team.device.type, torch.bfloat16) if self.recipe.precision == "bf16" else nullcontext()

    def _written_down(self, drawn: Sequence[tuple[Batch, list[Draw]]], losses: Sequence[float], what: str) -> str:
        """Write the samples of this step into the run's folder and return the sentence that says so. `losses`: action, future, motion."""
        place = Path(self.recipe.out) / f"bad_batch{self.team.rank or ''}.json"
        named = [self.samples.name(draw) for _, draws in drawn for draw in draws]
        others = [f"bad_batch{rank or ''}.json" for rank in range(self.team.size) if rank != self.team.rank]
        by_name = dict(zip(("action", "generation", "motion"), losses, strict=True))
        told = {"step": self.step, "what": what, **{name: str(loss) for name, loss in by_name.items()}, "samples": named}
        tensors = {f"{i}.{name}": value for i, (batch, _) in enumerate(drawn) for name, value in tensors_of(batch.inputs).items()}
        tensors |= {f"{i}.displaced": batch.displaced for i, (batch, _) in enumerate(drawn) if batch.displaced is not None}
        shared = f", those of the other processes in {', '.join(others)}" if others else ""
        where = f"its {len(named)} samples are in '{place}', as tensors beside it{shared}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            save_tensors(place.with_suffix(".safetensors"), tensors)
        except (OSError, SafetensorError) as problem:
            where = f"its samples cannot be written to '{place}' ({problem}), the first is {named[0]}"
        found = ", ".join(f"{name} {loss:g}" for name, loss in by_name.items())
        return f"step {self.step}: the {what} is not finite ({found}): {where}; no weight was moved; {way_on(Path(self.recipe.out))}"

    # ---- there and back ------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """Everything that changes, at this step."""
        whole = self.team.whole
        tensors = {f"weight.{name}": whole(weight) for name, weight in self.weights.items()}
        for name, tensor in (self.mean or {}).items():
            tensors[f"mean.{name}"] = whole(tensor)
        for name, weight in self.weights.items():
            tensors |= {f"{moment}.{name}": whole(value) for moment, value in self._optimiser.moments(weight).items()}
        told = {
            "step": self.step,
            "left_out": [[*episode, *found] for episode, found in self.undecoded.items()],
            "frames": [material.frames for material in self.samples.materials],
            "samplers": [sampler.state for sampler in self.samplers],
            "adam": {name: steps for name, weight in self.weights.items() if (steps := self._optimiser.steps(weight)) is not None},
            "recipe": self.recipe.model_dump(mode="json"),
        }
        return Snapshot({name: tensor.contiguous() for name, tensor in tensors.items()}, told)

    @torch.no_grad()
    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot. Raises ConfigurationError where it is of another recipe, model or other data."""
        out = Path(self.recipe.out)
        need_same_recipe(out, snapshot.told["recipe"], self.recipe)
        parts = snapshot.parts
        need_same(out, self.weights, parts["weight"])
        for name, weight in self.weights.items():
            weight.copy_(dealt(parts["weight"][name], weight))
            if self.mean is not None:
                self.mean[name].copy_(dealt(parts["mean"][name], weight))
            moments = {moment: dealt(parts[moment][name], weight).clone() for moment in MOMENTS if name in parts.get(moment, ())}
            if moments:
                self._optimiser.resume(weight, moments, snapshot.told["adam"].get(name))
        frames = [material.frames for material in self.samples.materials]
        if snapshot.told["frames"] != frames:
            raise ConfigurationError(f"'{out}': its run saw datasets of {snapshot.told['frames']} frames, the mixture now has {frames}")
        for sampler, state in zip(self.samplers, snapshot.told["samplers"], strict=True):
            sampler.resume(state)
        self.step = int(snapshot.told["step"])
        self.undecoded = {(dataset, number): (count, why) for dataset, number, count, why in snapshot.told.get("left_out", [])}

    @property
    def handed_out(self) -> InternVLAA1:
        """The model as others get it: with the running mean of its weights where one is kept. It shares their memory."""
        model, mean = empty_model(self.model.sizes), self.mean or {}
        held = {name: self.team.whole(mean.get(name, weight)) for name, weight in self.model.named_parameters()}
        model.load_state_dict(held, assign=True)
        return model


def keep_no_insides(model: InternVLAA1) -> None:
    """Let every layer compute what is inside it again when its gradients are wanted: less memory, more work."""
    for module in model.modules():
        if isinstance(module, (Layer, VisionBlock, VisionLayer)):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Shares:
    """What a step's losses are divided by: labelled actions (steps of chunks), imagined views and parcels of all its batches."""

    actions: float
    views: float
    parcels: float
    mask_padding: bool

    @classmethod
    def of(cls, batches: Sequence[Batch], mask_padding: bool, team: Team = ALONE) -> Shares:
        empty = cls(0.0, 0.0, 0.0, mask_padding)
        actions = sum(float(empty.counts(batch).sum()) for batch in batches)
        views = sum(float(batch.inputs.imagined.sum()) for batch in batches)
        parcels = sum(batch.parcels for batch in batches)
        actions, views, parcels = team.total(actions, views, parcels)
        return cls(actions, views, parcels, mask_padding)

    def counts(self, batch: Batch) -> Tensor:
        """Which steps [B, H] of the chunks count: 0 where the dataset is video alone."""
        inside = batch.inside if self.mask_padding else torch.ones_like(batch.inside)
        return inside * batch.known


def need_same_recipe(out: Path, former: dict[str, Any], recipe: Document) -> None:
    """Raise ConfigurationError where the run in `out` was made by a recipe that differs in more than may be changed."""
    mine = recipe.model_dump(mode="json")
    # A key that came later was as if it had its default.
    keys = type(recipe).model_fields.items()
    former = {key: to_jsonable_python(field.get_default()) for key, field in keys if not field.is_required()} | former
    moved = [key for key in MOVABLE if former.get(key) and mine[key]]
    other = [key for key in mine if key not in (*CHANGEABLE, *moved) and former.get(key) != mine[key]]
    if other:
        key = other[0]
        raise ConfigurationError(
            f"'{out}' holds a run of another recipe: {key}: got {former.get(key)!r}, now {mine[key]!r}; choose another `out` or remove it"
        )


def need_even(recipe: Recipe, team: Team) -> None:
    """Raise ConfigurationError where a batch cannot be dealt evenly to the processes of `team`."""
    if recipe.batch % team.size:
        raise ConfigurationError(f"batch: got {recipe.batch}, expected a multiple of the {team.size} processes")


def generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def placed(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    """The same batch on a device."""
    tensors: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors_of(batch).items()}
    return replace(batch, **tensors)


def tensors_of(batch: TrainingBatch) -> dict[str, Tensor]:
    """The tensors of a batch by name."""
    every = {name: getattr(batch, name) for name in TrainingBatch.__slots__}
    return {name: value.contiguous() for name, value in every.items() if isinstance(value, Tensor)}
