"""What memory a recipe needs, before anything is loaded: a step is gone through with tensors that have sizes and no contents.

Counted is what torch allocates on a CPU. A GPU's attention may keep its scores besides, and its allocator loses some to gaps.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from internvla_a1_ros.learning.optimiser import inside_layers
from internvla_a1_ros.learning.recipe import Precision, Recipe, moves
from internvla_a1_ros.learning.sharding import units
from internvla_a1_ros.learning.taught import Taught
from internvla_a1_ros.learning.training import keep_no_insides
from internvla_a1_ros.model.checkpoint import empty_model
from internvla_a1_ros.model.flow import TrainingBatch
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.sizes import Architecture

FLOAT = 4  # bytes: weights, gradients and moments are float32 in either precision
USABLE = 0.9  # of a GPU: the rest is CUDA's own and lost to gaps


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes. `stepping`: what AdamW holds in between on a GPU, after the activations are gone; `gathered`: weights and gradients that
    FSDP puts together at once. Activations are those of `rows` samples."""

    rows: int
    weights: int
    gradients: int
    moments: int
    mean: int
    activations: int
    stepping: int
    gathered: int

    @property
    def kept(self) -> int:
        """What lasts from step to step."""
        return self.weights + self.gradients + self.moments + self.mean

    @property
    def total(self) -> int:
        return self.kept + max(self.activations, self.stepping)

    def gpus(self, capacity: float) -> int | None:
        """How many GPUs of `capacity` bytes it takes, each with `rows` samples: several hold the rest in shards. None: no number does."""
        room = USABLE * capacity
        if self.total <= room:
            return 1
        count, room = 1, room - self.gathered
        if self.activations < room:
            count = math.ceil(max(self.kept / (room - self.activations), (self.kept + self.stepping) / room))
        return max(2, count) if self.activations < room else None


def plan(sizes: Architecture, recipe: Recipe) -> Plan:
    """Plan a step of the recipe. Raises CheckpointError for sizes of which no model exists."""
    model, freeze = empty_model(sizes), recipe.freeze
    whole = sum(weight.numel() for weight in model.parameters())
    moved = [(name, weight) for name, weight in model.named_parameters() if moves(name, freeze)]
    moving = sum(weight.numel() for _, weight in moved)
    by_muon = sum(weight.numel() for name, weight in moved if recipe.optimiser == "muon" and inside_layers(name, weight))
    parts = [sum(weight.numel() for weight in unit.parameters()) for unit in units(model)]
    cosmos = sum(weight.numel() for weight in model.cosmos.parameters())
    rest = whole - cosmos - sum(parts)
    return Plan(
        rows=recipe.batch,
        weights=FLOAT * whole,
        gradients=FLOAT * moving,
        moments=FLOAT * (2 * moving - by_muon),
        mean=0 if recipe.ema is None else FLOAT * moving,
        activations=activations(sizes, recipe),
        stepping=FLOAT * moving,
        gathered=FLOAT * (2 * rest + 2 * 2 * max(parts, default=0) + cosmos),
    )


def activations(sizes: Architecture, recipe: Recipe) -> int:
    """Return the most bytes that one way forward and back holds besides weights and their gradients."""
    with FakeTensorMode():
        model = InternVLAA1(sizes)
        for name, weight in model.named_parameters():
            weight.requires_grad_(moves(name, recipe.freeze))
        if recipe.gradient_checkpointing:
            keep_no_insides(model)
        batch, noise, times = drawn(sizes, recipe.batch, recipe.draws)
        return most_held(Taught(model), batch, noise, times, recipe.precision)


def most_held(taught: nn.Module, batch: TrainingBatch, noise: Tensor, times: Tensor, precision: Precision) -> int:
    """Return the most bytes that one way forward and back through `taught` holds besides weights and their gradients."""
    for weight in taught.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    held = Held(tensor for weight in taught.parameters() for tensor in (weight, weight.grad) if tensor is not None)
    with held:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            errors, *others = taught(batch, noise, times)
            loss = errors.mean() + sum(others)
        loss.backward()
    return held.most


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made inside that are still there, and the `most` there ever were."""

    def __init__(self, known: Iterator[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}
        self._now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self._alive:
                self._add(key, tensor.untyped_storage())
        return out

    def _add(self, key: int, storage: Any) -> None:
        size = storage.nbytes()

        def gone(_: Any) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size
        self.most = max(self.most, self._now)


def drawn(sizes: Architecture, rows: int, draws: int = 1) -> tuple[TrainingBatch, Tensor, Tensor]:
    """Inputs of the right sizes, with noise and flow times of so many draws each."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(rows, *shape)

    batch = TrainingBatch(
        pixel_values=zeros(sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width),
        grid=sizes.grid,
        input_ids=torch.zeros(rows, sizes.prefix_tokens, dtype=torch.long),
        attention_mask=torch.ones(rows, sizes.prefix_tokens, dtype=torch.bool),
        view_mask=torch.ones(rows, sizes.views, dtype=torch.bool),
        latents=zeros(sizes.views, 3, sizes.cosmos.latent_channels, *sizes.latent_grid),
        state=zeros(sizes.state_width),
        actions=zeros(sizes.chunk, sizes.action_width),
    )
    return batch, torch.zeros(rows * draws, sizes.chunk, sizes.action_width), torch.full((rows * draws,), 0.5)
