"""Confidence intervals of figures from one long run (batch means) or from several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BATCHES = 20


def batch_interval(
    values: np.ndarray, statistic: str = "mean", confidence: float = 0.90, batches: int = BATCHES
) -> tuple[float, float]:
    """Return the interval of a statistic of a correlated series, by non-overlapping batches.

    Args:
        values: the series in order.
        statistic: ``mean`` or a percentile such as ``p99``.
        confidence: of the interval.
        batches: series of equal length that stand for independent ones (Law and Kelton,
            Simulation Modeling and Analysis, section 9.5).
    """
    if len(values) < 2 * batches:
        return (math.nan, math.nan)
    size = len(values) // batches
    rows = values[-size * batches :].reshape(batches, size)
    return interval_of(of_rows(rows, statistic), confidence)


def of_rows(rows: np.ndarray, statistic: str) -> np.ndarray:
    """Return the statistic of each row."""
    if statistic == "mean":
        return np.asarray(rows.mean(axis=1))
    return np.asarray(np.percentile(rows, float(statistic.removeprefix("p")), axis=1))


def interval_of(
    estimates: Sequence[float] | np.ndarray, confidence: float = 0.90
) -> tuple[float, float]:
    """Return Student's interval of the mean of independent estimates."""
    from scipy.stats import t

    found = np.asarray(estimates, dtype=float)
    if len(found) < 2:
        return (math.nan, math.nan)
    half = t.ppf(0.5 + confidence / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)
