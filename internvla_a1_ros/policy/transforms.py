"""From robot units to the model's and back: every transform has its inverse beside it. numpy only.

W is the robot's width, D the model's padded one, H the actions of a chunk. On the way in: delta, normalise, pad; on the way
out: cut, un-normalise, add the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ActionMode = Literal["delta", "abs"]

EPSILON = 1e-6  # of the released code, added to every spread


def delta_mask(runs: Sequence[int]) -> Mask:
    """Read runs such as [6, -1, 6, -1]: a positive run of joints is relative, a negative one absolute.

    Raises ConfigurationError where a run is 0.
    """
    if not runs or 0 in runs:
        raise ConfigurationError(f"delta mask: got {list(runs)}, expected runs other than 0, such as [6, -1, 6, -1]")
    return np.concatenate([np.full(abs(run), run > 0) for run in runs])


class Scale(Protocol):
    """A normalisation of vectors [..., W]."""

    def forward(self, values: Array) -> Array: ...

    def inverse(self, values: Array) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class MeanStd:
    """(x - mean) / (std + 1e-6)."""

    mean: Array
    std: Array

    def forward(self, values: Array) -> Array:
        return (values - self.mean) / (self.std + EPSILON)

    def inverse(self, values: Array) -> Array:
        return values * (self.std + EPSILON) + self.mean


@dataclass(frozen=True, slots=True, eq=False)
class MinMax:
    """The range min .. max becomes -1 .. 1."""

    minimum: Array
    maximum: Array

    def forward(self, values: Array) -> Array:
        return (values - self.minimum) / (self.maximum - self.minimum + EPSILON) * 2 - 1

    def inverse(self, values: Array) -> Array:
        return (values + 1) / 2 * (self.maximum - self.minimum + EPSILON) + self.minimum


@dataclass(frozen=True, slots=True, eq=False)
class DeltaFromObservation:
    """Makes the masked joints of a whole chunk relative to the state at the observation; the others stay absolute."""

    mask: Mask

    def forward(self, actions: Array, state: Array) -> Array:
        return actions - np.where(self.mask, state, 0.0)

    def inverse(self, actions: Array, state: Array) -> Array:
        return actions + np.where(self.mask, state, 0.0)


@dataclass(frozen=True, slots=True)
class Pad:
    """Fills the last axis up with zeros from the robot's width to the model's."""

    robot_width: int
    model_width: int

    def forward(self, values: Array) -> Array:
        wide = np.zeros((*values.shape[:-1], self.model_width))  # np.pad takes ten times as long
        wide[..., : self.robot_width] = values
        return wide

    def inverse(self, values: Array) -> Array:
        return values[..., : self.robot_width]


@dataclass(frozen=True, slots=True, eq=False)
class StateTransform:
    """State [W] in robot units -> [D] as the model reads it."""

    scale: Scale
    pad: Pad

    def forward(self, state: Array) -> Array:
        return self.pad.forward(self.scale.forward(state))

    def inverse(self, values: Array) -> Array:
        return self.scale.inverse(self.pad.inverse(values))


@dataclass(frozen=True, slots=True, eq=False)
class ActionTransform:
    """Actions [H, W] in robot units -> [H, D] as the model learns them, given the state [W] at the observation. `delta` None: absolute."""

    delta: DeltaFromObservation | None
    scale: Scale
    pad: Pad

    def forward(self, actions: Array, state: Array) -> Array:
        relative = actions if self.delta is None else self.delta.forward(actions, state)
        return self.pad.forward(self.scale.forward(relative))

    def inverse(self, values: Array, state: Array) -> Array:
        relative = self.scale.inverse(self.pad.inverse(values))
        return relative if self.delta is None else self.delta.inverse(relative, state)


def action_transform(mode: ActionMode, mask: Mask, scale: Scale, pad: Pad) -> ActionTransform:
    """Build the transform of a checkpoint's `action_mode`. Raises where mode or width do not fit."""
    if mode not in ("delta", "abs"):
        raise ConfigurationError(f"action_mode: got '{mode}', expected 'delta' or 'abs'")
    if mask.shape != (pad.robot_width,):
        raise CheckpointError(f"delta mask: got {mask.size} joints, expected the robot's {pad.robot_width}")
    return ActionTransform(DeltaFromObservation(mask) if mode == "delta" else None, scale, pad)
