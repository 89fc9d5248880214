"""Where joints stood still in a log: what they read there is what grippers and zeros are calibrated from."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray

MIN_REST_S = 0.4


def resting(stamps_s: FloatArray, positions: FloatArray, tolerance: FloatArray, min_s: float = MIN_REST_S) -> FloatArray:
    """Return the median reading [k, dof] of each stretch of at least `min_s` in which no joint strayed by more than `tolerance` [dof].

    `stamps_s` [n] rise, `positions` [n, dof]. Stretches are taken greedily from the start and never overlap.
    """
    medians, start = [], 0
    while start < len(stamps_s):
        low, high = positions[start].copy(), positions[start].copy()
        end = start + 1
        while end < len(stamps_s):
            np.minimum(low, positions[end], out=low)
            np.maximum(high, positions[end], out=high)
            if (high - low > tolerance).any():
                break
            end += 1
        if stamps_s[end - 1] - stamps_s[start] >= min_s:
            medians.append(np.median(positions[start:end], axis=0))
            start = end
        else:
            start += 1
    return np.array(medians).reshape(len(medians), positions.shape[1])
