"""Latency targets that an operating point has to meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.errors import InputError


@dataclass(frozen=True)
class Target:
    """Latency targets; infinity where there is none.

    Args:
        ttft_s, tpot_s, e2e_s: means in the steady state.
        ttft_p99_s, tpot_p99_s: tails, held in the serving simulator; the steady state is held to
            them as means.
    """

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    e2e_s: float = math.inf
    ttft_p99_s: float = math.inf
    tpot_p99_s: float = math.inf

    def __post_init__(self) -> None:
        """Refuse targets that nothing can meet."""
        for name in ("ttft_s", "tpot_s", "e2e_s", "ttft_p99_s", "tpot_p99_s"):
            value = getattr(self, name)
            if not value > 0 or math.isnan(value):
                raise InputError(f"target {name} = {value}: must be a positive number of seconds")

    def met(self, point: Any) -> Any:
        """Return where an operating point's mean latencies meet the targets."""
        ok = np.asarray(point.ttft_s) <= min(self.ttft_s, self.ttft_p99_s)
        ok = ok & (np.asarray(point.tpot_s) <= min(self.tpot_s, self.tpot_p99_s))
        return ok & (np.asarray(point.e2e_s) <= self.e2e_s)

    def __str__(self) -> str:
        parts = [(n, getattr(self, f"{n.lower()}_s")) for n in ("TTFT", "TPOT", "E2E")]
        parts += [("p99 TTFT", self.ttft_p99_s), ("p99 TPOT", self.tpot_p99_s)]
        shown = [f"{name} ≤ {1e3 * v:g} ms" for name, v in parts if math.isfinite(v)]
        return ", ".join(shown) or "no latency target"
