"""Freshness of a stream is three facts: alive (something came lately), frequency ok, valid (its content was accepted)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a stream at one moment; `age_ns` is None where nothing ever came."""

    alive: bool
    frequency_ok: bool
    valid: bool
    age_ns: int | None
    rate_hz: float

    @property
    def ok(self) -> bool:
        return self.alive and self.frequency_ok and self.valid

    def reason(self, name: str) -> str:
        """Return one sentence on the worst of the three, or an empty string where all hold."""
        if self.age_ns is None:
            return f"{name}: nothing received yet"
        if not self.alive:
            return f"{name}: last received {self.age_ns * 1e-9:.2f} s ago"
        if not self.valid:
            return f"{name}: the last message was refused"
        return "" if self.frequency_ok else f"{name}: {self.rate_hz:.1f} Hz is below what is needed"


class Freshness:
    """Watches one stream by receive time: `max_age_ns` decides alive, `min_rate_hz` decides frequency.

    The rate is that of the last second (of the last `window` arrivals where these are fewer), so a stream that stood
    still is itself again a second after it came back. Until three arrivals tell a rate, frequency counts as ok.
    """

    def __init__(self, max_age_ns: int, min_rate_hz: float = 0.0, window: int = 32) -> None:
        self._max_age_ns = max_age_ns
        self._min_rate_hz = min_rate_hz
        self._arrivals: deque[int] = deque(maxlen=window)
        self._valid = True

    def received(self, now_ns: int, valid: bool = True) -> None:
        """Note one arrival and whether its content was accepted."""
        arrivals = self._arrivals
        arrivals.append(now_ns)
        while len(arrivals) > 2 and arrivals[1] <= now_ns - _SECOND_NS:
            arrivals.popleft()
        self._valid = valid

    def clear(self) -> None:
        """Forget every arrival."""
        self._arrivals.clear()
        self._valid = True

    def health(self, now_ns: int) -> Health:
        """Return the three facts at `now_ns`."""
        arrivals = self._arrivals
        if not arrivals:
            return Health(False, False, self._valid, None, 0.0)
        age = now_ns - arrivals[-1]
        span = arrivals[-1] - arrivals[0]
        rate = (len(arrivals) - 1) * 1e9 / span if span > 0 else 0.0
        known = span >= _SECOND_NS or (span > 0 and len(arrivals) >= 3)
        frequency_ok = not known or rate >= self._min_rate_hz
        return Health(age <= self._max_age_ns, frequency_ok, self._valid, age, rate)
