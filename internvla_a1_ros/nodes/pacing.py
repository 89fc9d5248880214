"""Ticks at a fixed rate: scheduled times on a grid, how late each was, and how many were missed."""

from __future__ import annotations

import threading
import time

import numpy as np

from internvla_a1_ros.nodes.clocks import NodeClock


class Pacer:
    """Sleeps to the next point of the grid `start + k * period`. A tick that comes half a period late or more begins the grid anew, so
    that the next does not follow at once; on simulated time, which steps, one that comes a whole period late skips ahead.

    Keeps the last `keep` deviations of the interval between ticks from the period, and the last `keep` latenesses.
    """

    SIMULATED_POLL_S = 0.001

    def __init__(self, period_ns: int, keep: int) -> None:
        self._period_ns = period_ns
        self._scheduled_ns = 0
        self._woke_ns = 0
        self._jitter_ns = np.zeros(keep, dtype=np.int64)
        self._late_ns = np.zeros(keep, dtype=np.int64)
        self._ticks = 0

    def start(self, clock: NodeClock) -> None:
        """Begin a new grid at the clock's present time."""
        self._scheduled_ns = clock.now_ns()
        self._woke_ns = 0

    def wait(self, clock: NodeClock, going: threading.Event) -> tuple[int, int]:
        """Sleep until the next tick; return its scheduled time and how many ticks were missed before it.

        On simulated time, which may stand still for good, it returns too where `going` is cleared.
        """
        self._scheduled_ns += self._period_ns
        now = clock.now_ns()
        if clock.simulated:
            while 0 < self._scheduled_ns - now < 1_000_000_000 and going.is_set():
                time.sleep(self.SIMULATED_POLL_S)
                now = clock.now_ns()
        elif self._scheduled_ns > now:
            time.sleep((self._scheduled_ns - now) * 1e-9)
            now = clock.now_ns()
        missed = 0
        behind = now - self._scheduled_ns
        if not clock.simulated and behind >= self._period_ns // 2:
            missed, self._scheduled_ns = behind // self._period_ns, now
        elif behind >= self._period_ns or behind < -self._period_ns:  # late, or the simulated clock jumped
            missed = max(0, behind // self._period_ns)
            self._scheduled_ns = now - max(0, behind) % self._period_ns
        self._note(now)
        return self._scheduled_ns, missed

    def _note(self, now: int) -> None:
        if self._woke_ns:
            i = self._ticks % len(self._jitter_ns)
            self._jitter_ns[i] = abs(now - self._woke_ns - self._period_ns)
            self._late_ns[i] = now - self._scheduled_ns
            self._ticks += 1
        self._woke_ns = now

    def reset_statistics(self) -> None:
        """Forget what was noted (after warm-up, at the beginning of a measurement)."""
        self._ticks = 0

    def statistics(self) -> dict[str, float]:
        """Return ticks noted, p99 and max of the period's jitter and of the lateness, in ms."""
        n = min(self._ticks, len(self._jitter_ns))
        if n == 0:
            return {"measured_ticks": 0.0}
        jitter, late = self._jitter_ns[:n] * 1e-6, self._late_ns[:n] * 1e-6
        return {
            "measured_ticks": float(n),
            "jitter_ms_p99": float(np.percentile(jitter, 99)),
            "jitter_ms_max": float(jitter.max()),
            "late_ms_p99": float(np.percentile(late, 99)),
            "late_ms_max": float(late.max()),
        }
