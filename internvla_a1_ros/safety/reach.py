"""Can a joint be exactly in a given state one tick from now without leaving its limits?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.types import FloatArray

BoolArray = npt.NDArray[np.bool_]
State = tuple[FloatArray, FloatArray, FloatArray]

# Rounding of a limit met exactly.
_RELATIVE = 1.0 + 1e-9
# What two constant jerks may leave over, in velocity and position: far below any limit's difference, above rounding.
_LEFT_VELOCITY = 1e-11
_LEFT_POSITION = 1e-12


class Reach:
    """Two pieces of constant jerk from one state (p, v, a) to another in `dt_s`, under limits V, A and J [dof].

    A spline with at most one knot a tick is two such pieces. Of what happens in the tick, take away a constant jerk of the
    same change of acceleration; the rest x in velocity and y in position belongs to the step k = j1 - j2 of the jerk at tau:
    x = k tau (dt - tau) / 2 and y = x (2 dt - tau) / 3, which gives tau, k and both jerks in closed form.
    """

    def __init__(self, max_velocity: FloatArray, max_acceleration: FloatArray, max_jerk: FloatArray, dt_s: float) -> None:
        self._dt_s = dt_s
        self._velocity = max_velocity * _RELATIVE
        self._double_jerk = 2.0 * max_jerk
        # One row per thing that is bounded: comparing them at once costs a third of comparing them one by one.
        rows = [max_jerk, max_jerk, max_acceleration, max_acceleration, *[max_velocity] * 5]
        self._bounds = np.array(rows) * _RELATIVE
        self._values = np.zeros_like(self._bounds)

    def check(self, start: State, end: State, scale: float) -> BoolArray:
        """Return per joint whether the way exists within the limits, that of speed times `scale`, and can end within them."""
        p, v, a = start
        end_p, end_v, end_a = end
        dt = self._dt_s
        jerk, next_jerk, middle_a, last_a, middle_v, last_v, coasting, peak, next_peak = self._values
        change = end_a - a
        mean = v + (0.5 * dt) * a
        x = end_v - v - (0.5 * dt) * (a + end_a)
        y = end_p - p - dt * (mean + (dt / 6.0) * change)
        constant = np.abs(x) <= _LEFT_VELOCITY
        any_constant = constant.any()
        if any_constant:
            x[constant] = 1.0
        tau = 2.0 * dt - 3.0 * y / x
        met = (tau > 0.0) & (tau < dt)
        if any_constant:
            met[constant] = np.abs(y[constant]) <= _LEFT_POSITION
            x[constant] = 0.0
            tau[constant] = 0.5 * dt
        if not met.all():
            tau[~met] = 0.5 * dt
        k = 2.0 * x / (tau * (dt - tau))
        np.multiply(change - k * tau, 1.0 / dt, out=next_jerk)
        np.add(next_jerk, k, out=jerk)
        np.add(a, tau * jerk, out=middle_a)
        np.add(v, tau * (a + 0.5 * tau * jerk), out=middle_v)
        last_a[:] = end_a
        last_v[:] = end_v
        # The velocity that is still to come when the acceleration is taken away as fast as allowed.
        np.add(end_v, end_a * np.abs(end_a) / self._double_jerk, out=coasting)
        peak[:] = end_v
        next_peak[:] = end_v
        for first_v, first_a, second_a, j, out in ((v, a, middle_a, jerk, peak), (middle_v, middle_a, end_a, next_jerk, next_peak)):
            turns = first_a * second_a < 0.0  # the velocity peaks inside the piece
            if turns.any():
                np.subtract(first_v, 0.5 * first_a * first_a / np.where(turns, j, 1.0), out=out, where=turns)
        bounds = self._bounds
        np.multiply(self._velocity, scale, out=bounds[4])
        bounds[5:] = bounds[4]
        met &= (np.abs(self._values) <= bounds).all(axis=0)
        return met
