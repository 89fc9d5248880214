"""Figures of a running loop: percentiles over a window that forgets, and the cadence report."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np


class Window:
    """The last `size` values of something, with percentiles."""

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Note one value."""
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def percentile(self, q: float) -> float:
        """Return the q-th percentile (0..100), nan where nothing was noted."""
        return float(np.percentile(np.array(self._values), q)) if self._values else float("nan")


@dataclass(slots=True)
class Cadence:
    """Effective rate against target, cycles over budget, share of the time per step."""

    target_hz: float
    warmup_cycles: int = 3
    cycles: int = 0
    over_budget: int = 0
    _starts_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    _totals_s: dict[str, float] = field(default_factory=dict)

    def cycle(self, start_ns: int, timings_s: dict[str, float]) -> None:
        """Note one finished cycle: when it began and how long each step took; warm-up cycles are not judged."""
        self.cycles += 1
        self._starts_ns.append(start_ns)
        if self.cycles <= self.warmup_cycles:
            return
        total = sum(timings_s.values())
        self.over_budget += total > 1.0 / self.target_hz
        for name, seconds in timings_s.items():
            self._totals_s[name] = self._totals_s.get(name, 0.0) + seconds

    @property
    def effective_hz(self) -> float:
        """Return the rate over the last cycles, 0 before the second."""
        starts = self._starts_ns
        span = starts[-1] - starts[0] if len(starts) > 1 else 0
        return (len(starts) - 1) * 1e9 / span if span > 0 else 0.0

    def shares(self) -> dict[str, float]:
        """Return the share of each step in the time spent."""
        total = sum(self._totals_s.values())
        return {name: seconds / total for name, seconds in self._totals_s.items()} if total > 0 else {}
