"""Do the arms follow? Compares a measurement with what was commanded at that time, and with what is commanded now."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import ACCEPTED, FloatArray, JointState, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile


class Tracking:
    """Remembers the last commands and fails when a measured joint is too far from its command for too long.

    It fails at once where a command is as far from the measurement as the robot itself would refuse (`max_step`): there no time is
    taken off, the robot knows of none either.
    """

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self._delay_ns = round(profile.actuation_delay_s * 1e9)
        self._patience_ns = round(profile.tracking_s * 1e9)
        size = round((profile.actuation_delay_s + profile.max_state_age_s) * profile.control_rate_hz) + 8
        self._times_ns = [0] * size
        self._commands = np.zeros((size, profile.dof))
        self._count = 0
        self._since_ns: int | None = None

    def reset(self) -> None:
        """Forget every command and every deviation."""
        self._count = 0
        self._since_ns = None

    def commanded(self, positions: FloatArray, now_ns: int) -> None:
        """Remember what is commanded at `now_ns`."""
        slot = self._count % len(self._times_ns)
        self._times_ns[slot] = now_ns
        self._commands[slot] = positions
        self._count += 1

    def check(self, measured: JointState, now_ns: int) -> Verdict:
        """Return whether the arms follow: command of the measurement's time minus the actuation delay against it."""
        if self._count:
            step = np.abs(measured.positions - self._commands[(self._count - 1) % len(self._times_ns)])
            if (step >= self._profile.max_step).any():
                i = int(np.flatnonzero(step >= self._profile.max_step)[0])
                name, allowed = self._profile.joint_names[i], self._profile.max_step[i]
                return refused("step", f"joint '{name}' is {step[i]:.4f} from its command, allowed below {allowed:.4f}")
        then_ns = measured.stamp_ns - self._delay_ns
        size = len(self._times_ns)
        for back in range(1, min(self._count, size) + 1):
            slot = (self._count - back) % size
            if self._times_ns[slot] <= then_ns:
                break
        else:
            return ACCEPTED  # nothing commanded that long ago
        error = np.abs(measured.positions - self._commands[slot])
        beyond = error > self._profile.max_tracking_error
        if not beyond.any():
            self._since_ns = None
            return ACCEPTED
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns <= self._patience_ns:
            return ACCEPTED
        i = int(np.flatnonzero(beyond)[0])
        return refused(
            "tracking",
            f"joint '{self._profile.joint_names[i]}' is {error[i]:.4f} from its command, "
            f"allowed {self._profile.max_tracking_error[i]:.4f} for {self._profile.tracking_s:.2f} s",
        )
