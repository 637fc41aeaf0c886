"""How noisy the machine is: one reference kernel repeated through the whole run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# Above this share the machine is called noisy: the fit cannot be better than its data.
NOISY = 0.05


@dataclass
class NoiseReport:
    """Times of the reference kernel through a run.

    Args:
        seconds: since the start, of each reading.
        latency_s: of the reference kernel at each.
        notes: what about the machine makes timings uncertain.
        load_average: of the last minute, at the start; NaN where unknown.
    """

    seconds: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load_average: float = float("nan")

    def add(self, seconds: float, latency_s: float) -> None:
        """Add a reading."""
        self.seconds.append(seconds)
        self.latency_s.append(latency_s)

    @property
    def variation(self) -> float:
        """Robust standard deviation of the readings over their median."""
        if len(self.latency_s) < 2:
            return 0.0
        values = np.asarray(self.latency_s)
        median = np.median(values)
        return float(1.4826 * np.median(np.abs(values - median)) / median)

    @property
    def drift(self) -> float:
        """Median of the last third over that of the first, less one."""
        third = max(1, len(self.latency_s) // 3)
        if len(self.latency_s) < 2:
            return 0.0
        return float(np.median(self.latency_s[-third:]) / np.median(self.latency_s[:third]) - 1.0)

    @property
    def worst(self) -> float:
        """Slowest reading over the fastest."""
        return max(self.latency_s) / min(self.latency_s) if self.latency_s else 1.0

    def sentence(self) -> str:
        """Return one line for a person."""
        word = "noisy" if max(self.variation, abs(self.drift)) > NOISY else "quiet"
        text = (f"{word} machine: reference kernel varies by {100 * self.variation:.1f} % (robust "
                f"sd), drifts by {100 * self.drift:+.1f} % from start to end, slowest reading "
                f"{self.worst:.2f} times the fastest ({len(self.latency_s)} readings)")
        if np.isfinite(self.load_average):
            text += f"; load average {self.load_average:.1f} at the start"
        return "; ".join([text, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return plain data with the figures."""
        return {**asdict(self), "variation": self.variation, "drift": self.drift,
                "worst": self.worst}
