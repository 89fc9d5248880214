"""Do the arms rest, by what is measured? Ours may, while somebody guides them by hand or another program still moves them."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import ACCEPTED, JointState, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile

# Of a joint's greatest speed. Noise of an encoder over the shortest span is far below, a hand that guides an arm above.
_STILL = 0.05
_SPAN_NS = 50_000_000
_LONGEST_NS = 500_000_000  # across a longer gap a mean says little


class Stillness:
    """Compares the newest measurement with one at least 50 ms before it."""

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self._before: JointState | None = None
        self._next: JointState | None = None

    def reset(self) -> None:
        """Forget what was measured."""
        self._before = self._next = None

    def see(self, measured: JointState) -> None:
        """Take the newest measurement; the same again is none."""
        if self._next is None:
            self._next = measured
        elif measured.stamp_ns - self._next.stamp_ns >= _SPAN_NS:
            self._before, self._next = self._next, measured

    def check(self, measured: JointState) -> Verdict:
        """Return whether no joint moves. Where too little was seen to say so, in the first moments, none is known to."""
        if self._before is None or not 0 < (span_ns := measured.stamp_ns - self._before.stamp_ns) <= _LONGEST_NS:
            return ACCEPTED
        speed = np.abs(measured.positions - self._before.positions) * (1e9 / span_ns)
        allowed = _STILL * self._profile.max_velocity
        for i in np.flatnonzero(speed > allowed):
            return refused(
                "moving",
                f"joint '{self._profile.joint_names[i]}' moves by {speed[i]:.3f} per second, allowed {allowed[i]:.3f}: "
                "let go of the arms, end what else moves them, or try again in a moment",
            )
        return ACCEPTED
