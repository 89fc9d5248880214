"""Which trials a run of rollouts has: their seeds, and how each begins."""

from __future__ import annotations

from dataclasses import replace

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.simulation.config import Range
from internvla_a1_ros.simulation.trial import RANGES, ROLLOUT_SEEDS, Conditions, Task

SEEDS_EACH = 1000
# Where the first parcel lies when the belt stands still: within reach of the right arm, whose base is at -0.24 m.
_STILL_Y_M = (-0.36, -0.12)


def seeds(run: int, n: int) -> range:
    """Return the trials' seeds of run `run`: none is a demonstration's. Raises ConfigurationError where a run has not so many."""
    if not (0 < n <= SEEDS_EACH and run >= 0):
        raise ConfigurationError(f"rollouts: got {n} of seed {run}, expected 1 to {SEEDS_EACH} and a seed of 0 or more")
    first = ROLLOUT_SEEDS + run * SEEDS_EACH
    return range(first, first + n)


def conditions_of(task: Task, seed: int, belt_m_s: Range | None) -> Conditions:
    """Draw a trial's conditions; where `belt_m_s` is given the belt's speed is stretched to it, all else stays as drawn.

    On a belt that stands still the first parcel lies within reach.
    """
    drawn = Conditions.drawn(task, seed)
    if belt_m_s is None:
        return drawn
    ranges = RANGES[task]
    speed = _stretched(drawn.belt_speed_m_s, ranges.belt_speed_m_s, belt_m_s)
    first_y_m = drawn.first_y_m if belt_m_s[1] > 0 else _stretched(drawn.first_y_m, ranges.first_y_m, _STILL_Y_M)
    return replace(drawn, belt_speed_m_s=speed, first_y_m=first_y_m)


def _stretched(value: float, of: Range, to: Range) -> float:
    return to[0] + (value - of[0]) / (of[1] - of[0]) * (to[1] - to[0])
