"""Gaps between tokens, pooled over a run in bounded memory."""

from __future__ import annotations

import math

import numpy as np

_PER_E_FOLD = 1000.0


class IntervalCounter:
    """Histogram of durations with bins 0.1 % wide: quantiles of a billion gaps in a few kB."""

    __slots__ = ("bins", "count", "total_s")

    def __init__(self) -> None:
        self.bins: dict[int, int] = {}
        self.count = 0
        self.total_s = 0.0

    def add(self, seconds: float, count: int) -> None:
        """Count ``count`` gaps of ``seconds`` each."""
        if seconds <= 0.0 or not count:
            return
        key = int(math.log(seconds) * _PER_E_FOLD)
        bins = self.bins
        bins[key] = bins.get(key, 0) + count
        self.count += count
        self.total_s += seconds * count

    def merge(self, other: IntervalCounter) -> None:
        """Add the counts of another counter."""
        for key, count in other.bins.items():
            self.bins[key] = self.bins.get(key, 0) + count
        self.count += other.count
        self.total_s += other.total_s

    def quantiles(self, shares: list[float]) -> list[float]:
        """Return the durations below which these shares of all gaps lie; NaN if there are none."""
        if not self.count:
            return [math.nan] * len(shares)
        keys = np.array(sorted(self.bins))
        reached = np.cumsum([self.bins[k] for k in keys.tolist()])
        at = np.searchsorted(reached, np.asarray(shares) * reached[-1])
        return [float(math.exp(k / _PER_E_FOLD)) for k in keys[np.minimum(at, len(keys) - 1)]]
