"""A share of successes with the interval that small numbers deserve."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Of the normal distribution, for 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`. Raises ValueError where there are more hits than tries, or either is below 0."""

    hits: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.n:
            raise ValueError(f"share: got {self.hits} of {self.n}, expected 0 to {self.n}")

    @property
    def rate(self) -> float | None:
        """The share itself, None of nothing."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of 95 % (Wilson 1927); the whole range where nothing was tried."""
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.hits / self.n, _Z * _Z
        middle = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = _Z / (1 + z2 / self.n) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n * self.n))
        # At the ends it touches them: rounding must not leave 1e-17.
        return 0.0 if self.hits == 0 else middle - half, 1.0 if self.hits == self.n else middle + half
