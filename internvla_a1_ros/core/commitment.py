"""What is committed already, laid onto the times of the chunk that is to continue it. Pure functions of stamps and numbers.

The command process says after every chunk it takes over what it will execute from then on: the committed tail, in robot units,
stamped with that chunk's observation. Until the next chunk is taken over the arms follow the tail whatever the policy thinks.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.types import ActionChunk, FloatArray

Times = npt.NDArray[np.int64]

# How far before its first point a tail is continued backwards, in steps: a chunk begins up to a picture's age before it.
_LEAD = 2
_WARM_UP = 3


class TakeOver:
    """How long it takes from an observation's capture until its chunk is followed, as a bound for the next one.

    A high percentile of the last ones, at most `max_ns`; the first ones, when everything is still slow, count only while
    there is nothing else. `bound_ns` is 0 before the first tail.
    """

    def __init__(self, max_ns: int, percentile: float = 95.0, window: int = 32) -> None:
        self._max_ns, self._percentile = max_ns, percentile
        self._seen: deque[int] = deque(maxlen=window)
        self._noted = 0
        self._last_stamp_ns: int | None = None
        self.bound_ns = 0

    def note(self, tail: ActionChunk) -> None:
        """Take in a tail: it begins when its chunk was taken over. The same chunk's tail counts once."""
        if tail.stamp_ns == self._last_stamp_ns:
            return
        self._last_stamp_ns = tail.stamp_ns
        if self._noted == _WARM_UP:
            self._seen.clear()
        self._noted += 1
        self._seen.append(tail.first_ns - tail.stamp_ns)
        ordered = sorted(self._seen)
        expected = ordered[math.ceil(self._percentile / 100 * len(ordered)) - 1]
        self.bound_ns = min(max(expected, 0), self._max_ns)


def chunk_times(first_ns: int, dt_ns: int, count: int) -> Times:
    """Return when the actions [count] of a chunk are to be reached."""
    return first_ns + dt_ns * np.arange(count, dtype=np.int64)


def resampled(tail: ActionChunk, times: Times) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the tail at `times` [n] as [n, dof], and for which of them it says anything [n].

    Between its points a cubic through them; up to two steps before the first a line; after the last nothing.
    """
    points, since = tail.positions, times - tail.first_ns
    known = (since >= -_LEAD * tail.dt_ns) & (since <= tail.dt_ns * (len(points) - 1))
    if len(points) < 2:
        return np.repeat(points, len(times), axis=0), known & (since >= 0)
    slopes = np.empty_like(points)
    slopes[0], slopes[-1] = points[1] - points[0], points[-1] - points[-2]
    slopes[1:-1] = 0.5 * (points[2:] - points[:-2])
    i = np.clip(since // tail.dt_ns, 0, len(points) - 2)
    u = np.clip(since / tail.dt_ns - i, 0.0, 1.0)[:, None]
    start, begin, end = points[i], slopes[i], slopes[i + 1]
    bend = points[i + 1] - start
    value: FloatArray = start + u * (begin + u * (3 * bend - 2 * begin - end + u * (begin + end - 2 * bend)))
    early = since < 0
    if early.any():
        value[early] += since[early, None] / tail.dt_ns * slopes[0]
    return value, known


def pin_weights(times: Times, known: npt.NDArray[np.bool_], fixed_until_ns: int, soft_until_ns: int) -> FloatArray:
    """Return how much the committed plan counts at each of `times` [n], 0 where it is not `known`.

    1 until `fixed_until_ns`: those actions are executed before the chunk is taken over. From there a soft end until
    `soft_until_ns`, c * (exp(c) - 1) / (e - 1) with c falling from 1 to 0 (arXiv 2506.07339, equation 5); then 0.
    """
    span = max(soft_until_ns - fixed_until_ns, 1)
    c = np.clip((soft_until_ns - times) / span, 0.0, 1.0)
    soft = c * np.expm1(c) / np.expm1(1.0)
    weights = np.where(times <= fixed_until_ns, 1.0, soft if soft_until_ns > fixed_until_ns else 0.0)
    return np.asarray(weights * known)
