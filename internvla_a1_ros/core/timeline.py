"""The plan that is being executed: chunks joined by time into one smooth curve per joint.

The curve is a C2 cubic spline through one knot per action, so position, velocity and acceleration are known
analytically at every tick and its jerk is piecewise constant, which is what a jerk-limited limiter can follow exactly.
A new chunk does not replace the plan, it is faded in: at the seam its weight and the weight's first two derivatives are zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.types import ActionChunk, FloatArray

_NS = 1e-9


def fade_weight(x: FloatArray) -> FloatArray:
    """Return the quintic smoothstep of `x` clipped to [0, 1]; its first two derivatives vanish at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


class Timeline:
    """Joins chunks in time and is sampled at any time. Not thread safe: it belongs to the command loop."""

    def __init__(self, dof: int, max_actions: int = 256) -> None:
        self._dof = dof
        self._capacity = max_actions + 1
        self._times_ns: list[int] = []
        # position in segment i = sum_d c[i, d] * s^d, with s the seconds since its start
        self._c = np.zeros((self._capacity, 4, dof))
        self._last = np.zeros(dof)
        # row r: what the four coefficients weigh in derivative r; the entries that depend on s are written by `sample`
        self._powers = np.diag((1.0, 1.0, 2.0, 0.0))[:3]
        self._state = np.zeros((3, dof))

    @property
    def empty(self) -> bool:
        return not self._times_ns

    @property
    def end_ns(self) -> int:
        """When the plan ends; 0 where there is none."""
        return self._times_ns[-1] if self._times_ns else 0

    def clear(self) -> None:
        """Forget the plan."""
        self._times_ns = []

    def merge(self, chunk: ActionChunk, from_ns: int, fade_ns: int, start: FloatArray) -> bool:
        """Fade `chunk` into the plan; what lies before `from_ns`, the time sampled next, is dropped.

        Until the chunk starts the old plan goes on. Where no plan exists the curve starts at rest at `start` [dof] and
        fades to the chunk. Returns False, and changes nothing, where the chunk has no action after `from_ns`, or more
        steps until its end than `max_actions`.
        """
        # A knot closer to the start than a quarter of a step would make the first segment ill-conditioned.
        first = -(-(from_ns + chunk.dt_ns // 4 - chunk.first_ns) // chunk.dt_ns)
        if not 0 < len(chunk.positions) - first < self._capacity:
            return False
        steps = np.arange(first, len(chunk.positions))  # negative ones lie before the chunk, on the old plan
        times = chunk.first_ns + chunk.dt_ns * steps
        knots = np.empty((len(steps) + 1, self._dof))
        start_velocity = np.zeros(self._dof)
        if self.empty:
            knots[0], old = start, np.broadcast_to(start, (len(steps), self._dof))
        else:
            self.sample(from_ns, knots[0], start_velocity, np.empty(self._dof))
            old = self._positions(times)
        fade_from_ns = max(from_ns, chunk.time_of(-1))
        weight = fade_weight((times - fade_from_ns) / fade_ns) if fade_ns > 0 else (steps >= 0).astype(np.float64)
        knots[1:] = old + weight[:, None] * (chunk.positions[np.maximum(steps, 0)] - old)
        self._fit([from_ns, *times.tolist()], knots, start_velocity)
        return True

    def _fit(self, times_ns: list[int], knots: FloatArray, start_velocity: FloatArray) -> None:
        """Cubic spline through the knots with given start velocity and zero acceleration at the end.

        The unknowns are the accelerations at the knots. For the 50 actions of a chunk one dense solve is five times
        cheaper than a banded elimination written in Python.
        """
        n = len(times_ns) - 1
        h = np.diff(times_ns) * _NS
        slope = np.diff(knots, axis=0) / h[:, None]
        matrix = np.zeros((n + 1, n + 1))
        right = np.zeros_like(knots)
        matrix[0, :2] = 2.0 * h[0], h[0]
        right[0] = 6.0 * (slope[0] - start_velocity)
        inner = np.arange(1, n)
        matrix[inner, inner - 1] = h[:-1]
        matrix[inner, inner] = 2.0 * (h[:-1] + h[1:])
        matrix[inner, inner + 1] = h[1:]
        right[1:n] = 6.0 * np.diff(slope, axis=0)
        matrix[n, n] = 1.0
        m = np.linalg.solve(matrix, right)
        c = self._c[:n]
        c[:, 0] = knots[:-1]
        c[:, 1] = slope - h[:, None] * (2.0 * m[:-1] + m[1:]) / 6.0
        c[:, 2] = 0.5 * m[:-1]
        c[:, 3] = (m[1:] - m[:-1]) / (6.0 * h[:, None])
        self._last[:] = knots[-1]
        self._times_ns = times_ns

    def sample(self, t_ns: int, position: FloatArray, velocity: FloatArray, acceleration: FloatArray) -> bool:
        """Write the plan at `t_ns` into the three [dof] arrays; before its start what holds at its start.

        Returns False where the plan is empty (nothing is written) or over (its last position is held, at rest).
        """
        times = self._times_ns
        if not times:
            return False
        if t_ns >= times[-1]:
            position[:] = self._last
            velocity.fill(0.0)
            acceleration.fill(0.0)
            return False
        # From the first action on the knots are evenly spaced; with one action alone times[2] is never reached.
        i = 0 if t_ns < times[1] else 1 + (t_ns - times[1]) // (times[2] - times[1])
        s = max(0, t_ns - times[i]) * _NS
        powers = self._powers
        powers[0, 1] = s
        powers[0, 2] = s * s
        powers[0, 3] = s * s * s
        powers[1, 2] = 2.0 * s
        powers[1, 3] = 3.0 * s * s
        powers[2, 3] = 6.0 * s
        np.matmul(powers, self._c[i], out=self._state)
        position[:], velocity[:], acceleration[:] = self._state
        return True

    def tail(self, from_ns: int, dt_ns: int, count: int) -> FloatArray:
        """Return the plan at `from_ns + k * dt_ns` as [<= count, dof], ending where the plan ends."""
        if self.empty:
            return np.zeros((0, self._dof))
        n = min(count, max(0, (self.end_ns - from_ns) // dt_ns + 1))
        return self._positions(from_ns + dt_ns * np.arange(n, dtype=np.int64))

    def _positions(self, at_ns: npt.NDArray[np.int64]) -> FloatArray:
        """Return the plan at many times [n] as [n, dof], held before its start and after its end."""
        times = np.array(self._times_ns)
        i = np.clip(np.searchsorted(times, at_ns, side="right") - 1, 0, len(times) - 2)
        s = (np.clip(at_ns, times[0], times[-1]) - times[i])[:, None] * _NS
        c = self._c[i]
        result: FloatArray = ((c[:, 3] * s + c[:, 2]) * s + c[:, 1]) * s + c[:, 0]
        return result
