"""Mean, spread and range of vectors that come in batches, in one pass; batches are joined by the formula of Chan, Golub and LeVeque."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class RunningMoments:
    """Statistics of the vectors [W] added so far. The spread is the population's (divided by n), as in the released code."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros(width)
        self.minimum: Array = np.full(width, np.inf)
        self.maximum: Array = np.full(width, -np.inf)
        self._squares: Array = np.zeros(width)  # of distances from the mean

    @classmethod
    def of_table(cls, table: Mapping[str, Any], count: int) -> RunningMoments:
        """What `count` vectors had that are told as in `as_table`, whatever the shape of a moment."""
        moments = {name: np.asarray(table[name], dtype=np.float64).reshape(-1) for name in ("min", "max", "mean", "std")}
        made = cls(len(moments["mean"]))
        made.count, made.mean, made.minimum, made.maximum = count, moments["mean"], moments["min"], moments["max"]
        made._squares = count * moments["std"] ** 2
        return made

    @property
    def std(self) -> Array:
        return np.asarray(np.sqrt(self._squares / max(self.count, 1)))

    def add(self, batch: npt.NDArray[Any]) -> None:
        """Add vectors [n, W]."""
        values = np.asarray(batch, dtype=np.float64)
        n = len(values)
        if n == 0:
            return
        mean = values.mean(axis=0)
        self._join(n, mean, ((values - mean) ** 2).sum(axis=0))
        self.minimum = np.minimum(self.minimum, values.min(axis=0))
        self.maximum = np.maximum(self.maximum, values.max(axis=0))

    def merge(self, other: RunningMoments) -> None:
        """Add everything that `other` has seen."""
        if other.count:
            self._join(other.count, other.mean, other._squares)
            self.minimum = np.minimum(self.minimum, other.minimum)
            self.maximum = np.maximum(self.maximum, other.maximum)

    def as_table(self) -> dict[str, list[Any]]:
        """Return min, max, mean, std [W] and count [1], as `stats.json` has them."""
        named = {"min": self.minimum, "max": self.maximum, "mean": self.mean, "std": self.std}
        return {**{name: values.tolist() for name, values in named.items()}, "count": [self.count]}

    def _join(self, n: int, mean: Array, squares: Array) -> None:
        total = self.count + n
        apart = mean - self.mean
        self.mean = self.mean + apart * (n / total)
        self._squares = self._squares + squares + apart**2 * (self.count * n / total)
        self.count = total
