"""When the simulation does what: a pace that never runs after lost time, and events at fixed rates of simulated time."""

from __future__ import annotations

import math


class Pacer:
    """Maps simulated to wall time at a factor. Time lost beyond `slack_ns` is given up and counted, never made up for in a burst."""

    def __init__(self, factor: float, slack_ns: int = 40_000_000) -> None:
        """`factor` is simulated seconds per wall second; 0 means as fast as it can."""
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(f"real-time factor: got {factor}, expected 0 (unpaced) or more")
        self._factor = factor
        self._slack_ns = slack_ns
        self._simulated_ns = 0
        self._wall_ns: int | None = None
        self.lost_ns = 0

    def wait_ns(self, simulated_ns: int, wall_ns: int) -> int:
        """Return how long to sleep until `simulated_ns` is due; 0 where it is due or late."""
        if self._factor == 0:
            return 0
        if self._wall_ns is None:
            self._simulated_ns, self._wall_ns = simulated_ns, wall_ns
        due_ns = self._wall_ns + round((simulated_ns - self._simulated_ns) / self._factor)
        if wall_ns - due_ns > self._slack_ns:
            self.lost_ns += wall_ns - due_ns
            self._simulated_ns, self._wall_ns = simulated_ns, wall_ns
        return max(0, due_ns - wall_ns)


class Event:
    """Something that happens `rate_hz` times a second of simulated time, `phase` (0..1) of a period after its start."""

    def __init__(self, name: str, rate_hz: float, phase: float = 0.0) -> None:
        if not rate_hz > 0:
            raise ValueError(f"{name}: got {rate_hz} Hz, expected above 0")
        self.name = name
        self._period_ns = 1e9 / rate_hz
        self._phase = phase
        self._count = 0

    @property
    def due_ns(self) -> int:
        """The simulated time at which it happens next."""
        return round((self._count + self._phase) * self._period_ns)

    def take(self, simulated_ns: int) -> bool:
        """Return whether it is due, and if so plan the next one; what was skipped is not made up for."""
        if simulated_ns < self.due_ns:
            return False
        self._count += 1
        if self.due_ns <= simulated_ns:
            self._count = math.floor(simulated_ns / self._period_ns - self._phase) + 1
        return True
