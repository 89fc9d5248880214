"""The loop of the stages before the policy's: pictures, a loss, weights, step by step, and the same again from any saved step on.

As in `training.py`, all that is random in step k is drawn from the seed and k; which pictures it sees is the sampler's state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.checkpoints import MOMENTS, Snapshot, need_same, way_on
from internvla_a1_ros.learning.mixture import Draw, Sampler
from internvla_a1_ros.learning.optimiser import Group, Optimiser
from internvla_a1_ros.learning.schedule import follow
from internvla_a1_ros.learning.stages_pictures import Gallery, Shown
from internvla_a1_ros.learning.stages_recipe import StageRecipe
from internvla_a1_ros.learning.training import generator

Numbers = dict[str, float]


class Lesson(Protocol):
    """What a stage teaches. `weights`: all that moves, by name: the model's own names, and others for what is thrown away afterwards."""

    weights: dict[str, nn.Parameter]

    def loss(self, shown: Shown, draw: torch.Generator) -> tuple[Tensor, Numbers]:
        """Return the loss of a batch and what it consists of."""
        ...

    def measured(self) -> Numbers:
        """Say how good the present weights are on what is kept back."""
        ...

    def finished(self) -> dict[str, Tensor]:
        """Return weights of the model, by name, as they are to be handed out where that is not as they are."""
        ...


@dataclass(frozen=True, slots=True)
class StageReport:
    """One step: the loss and its `parts`; where the step was saved, what was `measured` on what is kept back."""

    step: int
    loss: float
    rate: float
    gradient: float
    seconds: float
    data_s: float
    parts: Numbers
    measured: Numbers = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As a line of progress has it."""
        parts = ", ".join(f"{name} {value:.4f}" for name, value in self.parts.items())
        found = "".join(f", {name} {value:.4g}" for name, value in self.measured.items())
        return f"loss {self.loss:.4f} ({parts}), {self.seconds * 1e3:.0f} ms a step{found}"


class Course:
    """A lesson, its optimiser, and the pictures it is given on. Belongs to one thread."""

    def __init__(self, recipe: StageRecipe, lesson: Lesson, gallery: Gallery, sampler: Sampler) -> None:
        self.recipe, self.lesson, self.gallery, self.sampler = recipe, lesson, gallery, sampler
        self.step = 0
        self.weights = lesson.weights
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()}
        # Products are drawn towards zero; tables, biases and norms are not.
        decaying = {name: weight for name, weight in self.weights.items() if weight.ndim > 1 and "embed" not in name}
        still = {name: weight for name, weight in self.weights.items() if name not in decaying}
        groups = (Group(decaying, weight_decay=recipe.weight_decay), Group(still))
        self._optimiser = Optimiser(groups, recipe.optimiser, recipe.betas)

    def advance(self) -> StageReport:
        """Do one step. Raises ConfigurationError where the loss or its gradient is not finite: the batch is then written down."""
        recipe, began = self.recipe, time.perf_counter()
        draws = [self.sampler.draw() for _ in range(recipe.batch)]
        shown = self.gallery.drawn(draws)
        data_s, rate = time.perf_counter() - began, recipe.schedule.rate(self.step)
        self._optimiser.clear()
        with torch.autocast("cpu", torch.bfloat16) if recipe.precision == "bf16" else nullcontext():
            loss, parts = self.lesson.loss(shown, generator(recipe.seed, self.step))
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), recipe.clip))
        if not math.isfinite(float(loss.detach()) + gradient):
            raise ConfigurationError(self._written_down(draws, shown, parts))
        self._optimiser.step(rate)
        follow(self.mean, self.weights, recipe.ema, self.step)
        self.step += 1
        return StageReport(self.step, float(loss.detach()), rate, gradient, time.perf_counter() - began, data_s, parts)

    def _written_down(self, draws: list[Draw], shown: Shown, parts: Numbers) -> str:
        place = Path(self.recipe.out) / "bad_batch.json"
        samples = [self.named(origin) for origin in shown.origin]
        told = {"step": self.step, "parts": {name: str(value) for name, value in parts.items()}, "samples": samples}
        where = f"its {len(draws)} pictures are named in '{place}'"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        except OSError as problem:
            where = f"its pictures cannot be written to '{place}' ({problem}), the first is {samples[0]}"
        return f"step {self.step}: the loss or its gradient is not finite: {where}; no weight was moved; {way_on(Path(self.recipe.out))}"

    def named(self, origin: Any) -> dict[str, int | str]:
        """Say which picture it is, by dataset, number and view."""
        dataset, number, view = (int(each) for each in origin)
        stills = self.gallery.stills[dataset]
        place, step = stills.places[number].tolist()
        return {"dataset": str(stills.dataset.folder), "episode": stills.dataset.episodes[place].index, "step": step, "view": view}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the weights be their running mean for a while."""
        held = {name: weight.data for name, weight in self.weights.items()}
        try:
            for name, weight in self.weights.items():
                weight.data = self.mean[name]
            yield
        finally:
            for name, weight in self.weights.items():
                weight.data = held[name]

    @property
    def snapshot(self) -> Snapshot:
        """Everything that changes, at this step."""
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        tensors |= {f"mean.{name}": mean for name, mean in self.mean.items()}
        for name, weight in self.weights.items():
            tensors |= {f"{moment}.{name}": value for moment, value in self._optimiser.moments(weight).items()}
        told = {
            "step": self.step,
            "pictures": self.gallery.counts,
            "sampler": self.sampler.state,
            "recipe": self.recipe.model_dump(mode="json"),
        }
        return Snapshot({name: tensor.contiguous() for name, tensor in tensors.items()}, told)

    @torch.no_grad()
    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot. Raises ConfigurationError where it is of another model or other data."""
        out = Path(self.recipe.out)
        if snapshot.told["pictures"] != self.gallery.counts:
            got = snapshot.told["pictures"]
            raise ConfigurationError(f"'{out}': its run saw {got} pictures, the mixture now has {self.gallery.counts}")
        parts = snapshot.parts
        need_same(out, self.weights, parts["weight"])
        self.step = int(snapshot.told["step"])
        for name, weight in self.weights.items():
            weight.copy_(parts["weight"][name])
            self.mean[name].copy_(parts["mean"][name])
            moments = {moment: parts[moment][name].clone() for moment in MOMENTS if name in parts.get(moment, ())}
            if moments:
                self._optimiser.resume(weight, moments, self.step)
        self.sampler.resume(snapshot.told["sampler"])
