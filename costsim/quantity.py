"""A predicted number with its unit, its interval, what it is made of and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

UNCALIBRATED = "uncalibrated"


@dataclass(frozen=True)
class Quantity:
    """One prediction.

    The error is taken as log-normal on each side of the value, because errors of times and
    prices are ratios: ``value · exp(z · log_error)``.

    Args:
        value: the central value, in ``unit``.
        unit: SI unit or ``"$"`` combinations, such as ``"s"``, ``"$/1M tokens"``.
        log_error_low: standard deviation of log(actual / value) below the value.
        log_error_high: the same above it.
        breakdown: parts that add up to the value, in the same unit.
        provenance: where the value and its error come from.
    """

    value: float
    unit: str
    log_error_low: float = 0.0
    log_error_high: float = 0.0
    breakdown: Mapping[str, float] = field(default_factory=dict)
    provenance: str = UNCALIBRATED

    def interval(self, level: float = 0.90) -> tuple[float, float]:
        """Return the central interval that holds the true value with probability ``level``."""
        z = NormalDist().inv_cdf(0.5 + level / 2)
        low = self.value * math.exp(-z * self.log_error_low)
        return low, self.value * math.exp(z * self.log_error_high)

    def __float__(self) -> float:
        return float(self.value)

    def as_dict(self, level: float = 0.90) -> dict[str, object]:
        """Return a JSON-ready form: value, unit, interval, breakdown, provenance."""
        low, high = self.interval(level)
        return {
            "value": self.value,
            "unit": self.unit,
            "interval": [low, high],
            "interval_level": level,
            "breakdown": dict(self.breakdown),
            "provenance": self.provenance,
        }
