"""The last look at a command before it is sent: it trusts nothing that came before and knows only what was sent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.types import ACCEPTED, FloatArray, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile

# Rounding of differences of positions around 3 rad at 200 Hz is 1e-8 of the limits; a real violation is far above.
_RELATIVE = 1.0 + 1e-6
_POSITION = 1e-6
_KINDS = ("speed", "acceleration", "jerk")


class LastAssertion:
    """Finite differences of the sent commands against the limits of a profile; `stop` means those of e-stop and fault."""

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self._rate = 1e9 / profile.dt_ns
        self._normal = np.array([profile.max_velocity, profile.max_acceleration, profile.max_jerk]) * _RELATIVE
        self._stop = np.array([profile.max_velocity, profile.stop_acceleration, profile.stop_jerk]) * _RELATIVE
        self._sent = np.zeros(profile.dof)
        self._rates = np.zeros((3, profile.dof))
        self._new_rates = np.zeros((3, profile.dof))

    def reset(self, positions: FloatArray) -> None:
        """Take `positions` [dof] as the pose the arms have been resting in."""
        np.copyto(self._sent, positions)
        self._rates.fill(0.0)

    def check(self, positions: FloatArray, *, stop: bool) -> Verdict:
        """Return whether `positions` [dof] may follow what was sent; where they may, they count as sent."""
        profile, new = self._profile, self._new_rates
        if not np.isfinite(positions).all():
            return self._refuse(~np.isfinite(positions), positions, "position", "a finite number")
        # A joint found outside its limits may come in, never go further out.
        low = np.minimum(profile.lower, self._sent) - _POSITION
        high = np.maximum(profile.upper, self._sent) + _POSITION
        outside = (positions < low) | (positions > high)
        if outside.any():
            return self._refuse(outside, positions, "position", "a place inside the limits")
        np.subtract(positions, self._sent, out=new[0])
        np.multiply(new[0], self._rate, out=new[0])
        for order in (1, 2):
            np.subtract(new[order - 1], self._rates[order - 1], out=new[order])
            np.multiply(new[order], self._rate, out=new[order])
        limits = self._stop if stop else self._normal
        beyond = np.abs(new) > limits
        if beyond.any():
            kind = int(np.argwhere(beyond)[0][0])
            allowed = f"at most {limits[kind][beyond[kind]][0]:.4f}"
            return self._refuse(beyond[kind], new[kind], _KINDS[kind], allowed)
        np.copyto(self._sent, positions)
        self._rates, self._new_rates = new, self._rates
        return ACCEPTED

    def _refuse(self, where: npt.NDArray[np.bool_], values: FloatArray, kind: str, allowed: str) -> Verdict:
        i = int(np.flatnonzero(where)[0])
        return refused(
            f"assert_{kind}",
            f"last assertion: {kind} of joint '{self._profile.joint_names[i]}' would be {values[i]:.4f}, allowed {allowed}; not sent",
        )
