"""From what the command process has committed to what the flow is to arrive at: times, units, weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch

from internvla_a1_ros.core.commitment import TakeOver, chunk_times, pin_weights, resampled
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import ActionChunk, Observation
from internvla_a1_ros.model.integrators import Guidance
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.policy.transforms import ActionTransform

# off: not at all. hard: what is executed anyway is pinned. soft: and what follows is drawn, less and less. pinv: the same by gradients.
GuidanceMode = Literal["off", "hard", "soft", "pinv"]

# No prediction may pin more than this of a chunk: 12 actions at 30 Hz.
_MAX_PINNED_NS = 400_000_000
# A tail of a chunk seen longer ago is no plan any more that a new one should continue.
_MAX_AGE_NS = 1_000_000_000
_GRADIENT_CLIP = 5.0  # as in arXiv 2506.07339


def check_mode(mode: str, differentiable: bool) -> GuidanceMode:
    """Return the mode of this name. Raises ConfigurationError where there is no such mode or the engine cannot do it."""
    known = get_args(GuidanceMode)
    if mode not in known:
        raise ConfigurationError(f"guidance: got '{mode}', expected one of {', '.join(known)}{suggestion(mode, list(known))}")
    if mode == "pinv" and not differentiable:
        raise ConfigurationError(
            "guidance: 'pinv' asks for an engine with gradients, which 'reference' is; take 'hard' or 'soft' with others"
        )
    return cast("GuidanceMode", mode)


@dataclass(frozen=True, slots=True)
class Continued:
    """What the flow is given; `code`: "guided", or why it is given nothing; `pinned`: how many actions are fixed."""

    guidance: Guidance | None
    code: str
    pinned: int = 0


class Guide:
    """Makes the guidance of one policy."""

    def __init__(
        self, mode: GuidanceMode, robot: str, joint_names: tuple[str, ...], transform: ActionTransform, grippers: GripperMap, soft_s: float
    ) -> None:
        self.mode = mode
        self._robot, self._names = robot, joint_names
        self._transform, self._grippers = transform, grippers
        self._soft_ns = round(soft_s * 1e9) if mode in ("soft", "pinv") else 0
        self._clip = _GRADIENT_CLIP if mode == "pinv" else None
        self.take_over = TakeOver(_MAX_PINNED_NS)

    def guidance(self, tail: ActionChunk | None, observation: Observation, first_ns: int, dt_ns: int, count: int) -> Continued:
        """Return what the chunk of `observation`, `count` actions from `first_ns` on, is to continue."""
        reason = self._refusal(tail, observation)
        if reason or tail is None:
            return Continued(None, reason)
        self.take_over.note(tail)
        times = chunk_times(first_ns, dt_ns, count)
        positions, known = resampled(tail, times)
        # One step beyond the take-over: the first action that is free to differ must not be the one that is being moved to.
        fixed_until_ns = observation.stamp_ns + self.take_over.bound_ns + dt_ns
        weights = pin_weights(times, known, fixed_until_ns, fixed_until_ns + self._soft_ns)
        if not weights.any():
            return Continued(None, "over")
        if tail.joint_names != self._names:
            positions = positions[:, [tail.joint_names.index(name) for name in self._names]]
        state = self._grippers.state(observation.joints.positions)
        actions = self._transform.forward(self._grippers.action_inverse(positions), state)
        made = Guidance(torch.from_numpy(actions).float(), torch.from_numpy(weights).float(), self._clip)
        return Continued(made, "guided", int(np.count_nonzero(weights == 1.0)))

    def _refusal(self, tail: ActionChunk | None, observation: Observation) -> str:
        if self.mode == "off":
            return "off"
        if tail is None:
            return "no_tail"
        if tail.robot != self._robot or (tail.joint_names != self._names and sorted(tail.joint_names) != sorted(self._names)):
            return "other_robot"
        age_ns = observation.stamp_ns - tail.stamp_ns
        return "" if 0 < age_ns <= _MAX_AGE_NS else "stale"
