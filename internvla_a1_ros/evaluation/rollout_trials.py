"""Which trials a run of rollouts has."""

from __future__ import annotations

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.simulation.trial import ROLLOUT_SEEDS

SEEDS_EACH = 1000


def seeds(run: int, n: int) -> range:
    """Return the trials' seeds of run `run`: none is a demonstration's. Raises ConfigurationError where a run has not so many."""
    if not (0 < n <= SEEDS_EACH and run >= 0):
        raise ConfigurationError(f"rollouts: got {n} of seed {run}, expected 1 to {SEEDS_EACH} and a seed of 0 or more")
    first = ROLLOUT_SEEDS + run * SEEDS_EACH
    return range(first, first + n)
