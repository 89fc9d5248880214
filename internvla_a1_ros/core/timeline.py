"""The plan that is being executed: chunks joined by time into one smooth curve per joint.

The curve is a C2 cubic spline through one knot per action, so position, velocity and acceleration are known
analytically at every tick and its jerk is piecewise constant, which is what a jerk-limited limiter can follow exactly.
A new chunk does not replace the plan, it is faded in: at the seam its weight and the weight's first two derivatives are zero.
"""

from __future__ import annotations

from itertools import pairwise

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
        # coefficient d of segment i: position = sum_d c[d, i] * (t - time_i)^d
        self._c = np.zeros((4, self._capacity, dof))
        self._last = np.zeros(dof)
        self._scratch = [np.zeros(dof) for _ in range(3)]

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

        Where no plan exists the curve starts at rest at `start` [dof] and fades to the chunk. Returns False, and changes
        nothing, where the chunk has no action after `from_ns`.
        """
        # A knot closer to the start than a quarter of a step would make the first segment ill-conditioned.
        first = max(0, -(-(from_ns + chunk.dt_ns // 4 - chunk.first_ns) // chunk.dt_ns))
        n = len(chunk.positions) - first
        if n < 1 or n + 1 > self._capacity:
            return False
        times = [from_ns] + [chunk.time_of(k) for k in range(first, len(chunk.positions))]
        knots = np.empty((n + 1, self._dof))
        position, velocity, acceleration = self._scratch
        if self.empty:
            knots[0], start_velocity = start, np.zeros(self._dof)
            old: FloatArray = np.broadcast_to(start, (n, self._dof))
        else:
            self.sample(from_ns, position, velocity, acceleration)
            knots[0], start_velocity = position, velocity.copy()
            old = self._positions(np.array(times[1:]))
        since_start = (np.array(times[1:]) - from_ns).astype(np.float64)
        weight = fade_weight(since_start / fade_ns) if fade_ns > 0 else np.ones(n)
        knots[1:] = old + weight[:, None] * (chunk.positions[first:] - old)
        self._fit(times, knots, start_velocity)
        return True

    def _fit(self, times_ns: list[int], knots: FloatArray, start_velocity: FloatArray) -> None:
        """Cubic spline through the knots with given start velocity and zero acceleration at the end (Thomas algorithm)."""
        n = len(times_ns) - 1
        h = [(b - a) * _NS for a, b in pairwise(times_ns)]
        slope = np.diff(knots, axis=0) / np.array(h)[:, None]
        # Unknown: second derivatives m_0 .. m_n, with m_n = 0.
        upper = [0.5] + [0.0] * n
        right = np.zeros_like(knots)
        right[0] = 3.0 / h[0] * (slope[0] - start_velocity)
        for i in range(1, n):
            pivot = 2.0 * (h[i - 1] + h[i]) - h[i - 1] * upper[i - 1]
            upper[i] = h[i] / pivot
            right[i] = (6.0 * (slope[i] - slope[i - 1]) - h[i - 1] * right[i - 1]) / pivot
        m = right
        m[n] = 0.0
        for i in range(n - 1, -1, -1):
            m[i] -= upper[i] * m[i + 1]
        steps = np.array(h)[:, None]
        c = self._c
        c[0, :n] = knots[:-1]
        c[1, :n] = slope - steps * (2.0 * m[:-1] + m[1:]) / 6.0
        c[2, :n] = 0.5 * m[:-1]
        c[3, :n] = (m[1:] - m[:-1]) / (6.0 * steps)
        self._last[:] = knots[-1]
        self._times_ns = times_ns

    def sample(self, t_ns: int, position: FloatArray, velocity: FloatArray, acceleration: FloatArray) -> bool:
        """Write the plan at `t_ns` into the three [dof] arrays; before its start it is held at the start.

        Returns False where the plan is empty (nothing is written) or over (its last position is held, at rest).
        """
        times = self._times_ns
        if not times:
            return False
        if t_ns >= times[-1]:
            np.copyto(position, self._last)
            velocity.fill(0.0)
            acceleration.fill(0.0)
            return False
        if t_ns < times[1]:
            i = 0
        else:  # from the first action on the knots are evenly spaced
            i = 1 + (t_ns - times[1]) // (times[2] - times[1])
        s = max(0, t_ns - times[i]) * _NS
        c0, c1, c2, c3 = self._c[0, i], self._c[1, i], self._c[2, i], self._c[3, i]
        np.multiply(c3, 6.0 * s, out=acceleration)
        np.add(acceleration, c2, out=acceleration)
        np.add(acceleration, c2, out=acceleration)
        np.multiply(c3, 3.0 * s, out=velocity)
        np.add(velocity, c2, out=velocity)
        np.add(velocity, c2, out=velocity)
        np.multiply(velocity, s, out=velocity)
        np.add(velocity, c1, out=velocity)
        np.multiply(c3, s, out=position)
        np.add(position, c2, out=position)
        np.multiply(position, s, out=position)
        np.add(position, c1, out=position)
        np.multiply(position, s, out=position)
        np.add(position, c0, out=position)
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
        c = self._c
        result: FloatArray = ((c[3, i] * s + c[2, i]) * s + c[1, i]) * s + c[0, i]
        return result
