"""From the held pose into a plan that is already under way: the plan's part grows smoothly from 0 to 1."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray


class RampIn:
    """`pose + r(t) (plan - pose)` with the quintic r, whose first two derivatives vanish at both ends."""

    def __init__(self, dof: int, duration_s: float) -> None:
        self._duration_s = duration_s
        self._pose = np.zeros(dof)
        self._start_ns = 0

    def start(self, pose: FloatArray, now_ns: int) -> None:
        """Begin at `pose` [dof], at rest."""
        np.copyto(self._pose, pose)
        self._start_ns = now_ns

    def blend(self, now_ns: int, position: FloatArray, velocity: FloatArray, acceleration: FloatArray) -> bool:
        """Change the plan's state [dof] each into the ramp's, in place; return True once the ramp is over."""
        x = (now_ns - self._start_ns) * 1e-9 / self._duration_s
        if x >= 1.0:
            return True
        r = x * x * x * (10.0 + x * (6.0 * x - 15.0))
        dr = 30.0 * x * x * (1.0 + x * (x - 2.0)) / self._duration_s
        ddr = 60.0 * x * (1.0 + x * (2.0 * x - 3.0)) / (self._duration_s * self._duration_s)
        position -= self._pose
        acceleration *= r
        acceleration += 2.0 * dr * velocity + ddr * position
        velocity *= r
        velocity += dr * position
        position *= r
        position += self._pose
        return False
