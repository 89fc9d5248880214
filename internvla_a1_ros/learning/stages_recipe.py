"""The recipe of a stage before the policy's training: what it has in common with the other one. Paths as in `recipe.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from internvla_a1_ros.learning.optimiser import Kind
from internvla_a1_ros.learning.recipe import Count, Place, Precision, Text
from internvla_a1_ros.learning.schedule import Schedule
from internvla_a1_ros.robots.document import Document


class StageRecipe(Document):
    """What is learned from which pictures, and how.

    `start` and `mixture` as in a policy's recipe; of the datasets only pictures are used, of their steps every `every`-th, kept in `cache`.
    One episode in `held_out` is kept back to measure on. `ema`: the weights written are a running mean with this decay.
    `optimiser` as in a policy's recipe. Pictures are shifted by up to `shift_px` pixels (of the model's picture) either way.
    """

    stage: str
    name: Text
    start: Text
    mixture: Text
    out: Place
    cache: Place
    steps: Count
    batch: Count = 32
    every: Count = 10
    held_out: Annotated[int, Field(ge=2)] = 20
    schedule: Schedule = Schedule(peak=2e-3, end=2e-5, warmup_steps=100, decay_steps=3000)
    optimiser: Kind = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "float32"
    saved_precision: Precision = "float32"
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.995
    shift_px: Annotated[int, Field(ge=0)] = 4
    seed: Annotated[int, Field(ge=0)] = 0
    save_every: Count = 500
    threads: Count | None = None

    @property
    def samples_a_step(self) -> int:
        return self.batch
