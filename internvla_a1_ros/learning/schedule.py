"""What goes by the step: the learning rate, the running mean of weights, and the times at which the flow is taught (MODEL.md 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from internvla_a1_ros.robots.document import Document


class Schedule(Document):
    """`constant` after the warm-up, or `cosine` from `peak` down to `end` over `decay_steps`, counted with the warm-up."""

    kind: Literal["constant", "cosine"] = "cosine"
    peak: Annotated[float, Field(gt=0)] = 5e-5
    end: Annotated[float, Field(ge=0)] = 5e-6
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    decay_steps: Annotated[int, Field(ge=1)] = 60000

    @model_validator(mode="after")
    def _falls(self) -> Schedule:
        if self.kind == "cosine" and (self.end > self.peak or self.decay_steps <= self.warmup_steps):
            got = f"peak {self.peak:g}, end {self.end:g}, warmup_steps {self.warmup_steps}, decay_steps {self.decay_steps}"
            raise ValueError(f"schedule: got {got}, expected end below peak and the decay to outlast the warm-up")
        return self

    def rate(self, step: int) -> float:
        """Return the learning rate of `step` (the first is 0); the warm-up rises linearly and reaches the peak with its last step."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        done = min(1.0, (step - self.warmup_steps) / (self.decay_steps - self.warmup_steps))
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def follow(mean: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move a running mean of weights, at first faster: a mean over few steps must not be mostly the start."""
    kept = min(decay, (1 + step) / (10 + step))
    for name, weight in weights.items():
        mean[name].lerp_(weight.detach(), 1 - kept)


def flow_times(count: int, generator: torch.Generator) -> Tensor:
    """Return times [count] float32 in (0.001, 1]: 0.999 * Beta(1.5, 1) + 0.001, more of them near noise.

    Beta(a, 1) has the distribution function x^a, so a uniform number to the power of 1 / a is drawn from it.
    """
    return torch.rand(count, generator=generator).pow(1 / 1.5) * 0.999 + 0.001
