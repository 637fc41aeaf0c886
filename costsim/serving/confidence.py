"""Confidence intervals of figures from one long run (batch means) or from several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BATCHES = 20
FEWEST = 5
"""Batches below which no interval is given."""


def batch_interval(
    values: np.ndarray, statistic: str = "mean", confidence: float = 0.90, batches: int = BATCHES
) -> tuple[float, float]:
    """Return the interval of a statistic of a correlated series, by non-overlapping batches.

    A mean is that of the batches' means (Law and Kelton, Simulation Modeling and Analysis, section
    9.5). A percentile of a batch is biased, so that the interval lies around the percentile of the
    whole series and is as wide as the batches differ from it (sectioning: Asmussen and Glynn,
    Stochastic Simulation, section III.5); batches are fewer where values beyond it are few.

    Args:
        values: the series in order.
        statistic: ``mean`` or a percentile such as ``p99``.
        confidence: of the interval.
        batches: series of equal length that stand for independent ones.
    """
    if len(values) < 2 * batches:
        return (math.nan, math.nan)
    if statistic != "mean":
        beyond = len(values) * (1.0 - float(statistic.removeprefix("p")) / 100)
        batches = min(batches, int(beyond))
        if batches < FEWEST:
            return (math.nan, math.nan)
    size = len(values) // batches
    rows = values[-size * batches :].reshape(batches, size)
    if statistic == "mean":
        return interval_of(of_rows(rows, statistic), confidence)
    whole = float(of_rows(values[None, :], statistic)[0])
    spread = math.sqrt(float(np.sum((of_rows(rows, statistic) - whole) ** 2)) / (batches - 1))
    half = _student(confidence, batches) * spread / math.sqrt(batches)
    return whole - half, whole + half


def _student(confidence: float, count: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, count - 1))


def of_rows(rows: np.ndarray, statistic: str) -> np.ndarray:
    """Return the statistic of each row."""
    if statistic == "mean":
        return np.asarray(rows.mean(axis=1))
    return np.asarray(np.percentile(rows, float(statistic.removeprefix("p")), axis=1))


def interval_of(
    estimates: Sequence[float] | np.ndarray, confidence: float = 0.90
) -> tuple[float, float]:
    """Return Student's interval of the mean of independent estimates."""
    found = np.asarray(estimates, dtype=float)
    if len(found) < 2:
        return (math.nan, math.nan)
    half = _student(confidence, len(found)) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)
