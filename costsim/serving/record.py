"""What a run left behind: one row per request, what each replica did, and statistics of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from costsim.errors import InputError
from costsim.serving.confidence import batch_interval
from costsim.serving.intervals import IntervalCounter
from costsim.serving.requests import FAILED, FINISHED, REJECTED, STATUS_NAMES, TIMED_OUT
from costsim.serving.traffic import SloClass

PERCENTILES = (50.0, 90.0, 99.0)
COLUMNS = (
    "arrival", "prompt", "output", "scheduled", "first_token", "finished", "generated", "cached",
    "preemptions", "retries", "replica", "tenant", "pool", "session", "priority", "images",
    "status",
)  # fmt: skip


@dataclass(frozen=True)
class ReplicaUse:
    """What one replica did.

    Args:
        pool, role: as in its `ReplicaSpec`.
        busy_s: time in steps.
        mean_batch: decoding requests, mean over busy time.
        kv_occupancy: share of the KV blocks in use, mean over busy time.
        steps, prompt_tokens: done.
        up_s: time it stood ready or served.
        energy_j: idle and busy energy; 0 where no power was given.
        kind: number of its `ReplicaSpec`.
        accelerators: it has.
    """

    pool: str
    role: str
    busy_s: float
    mean_batch: float
    kv_occupancy: float
    steps: int
    prompt_tokens: int
    up_s: float
    energy_j: float
    kind: int = 0
    accelerators: int = 1


@dataclass(frozen=True)
class Record:
    """Times of every request and what they add up to.

    Args:
        table: columns of `COLUMNS`, one value per request (times in s, NaN where not reached).
        duration_s: from the first arrival to the last event.
        replicas: what each replica did.
        accelerators: of all replicas that ever stood.
        accelerator_s: accelerator-seconds that were held (for the cost).
        intervals: gaps between tokens, pooled.
        timelines: columns ``time_s``, ``queue``, ``batch``, ``kv_occupancy``, ``replicas``,
            ``power_w``, ``accelerators``; empty where not asked for.
        classes: SLO classes numbered by column ``tenant``.
        pools: names numbered by column ``pool``.
        warmup_s: requests that arrive before, counted from the first, are left out of the figures.
        complete: False where a time limit ended the run.
    """

    table: dict[str, np.ndarray]
    duration_s: float
    replicas: list[ReplicaUse]
    accelerators: int
    accelerator_s: float
    intervals: IntervalCounter
    timelines: dict[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[SloClass, ...] = (SloClass(),)
    pools: tuple[str, ...] = ("default",)
    warmup_s: float = 0.0
    complete: bool = True

    def __len__(self) -> int:
        return len(self.table["arrival"])

    @property
    def counted(self) -> np.ndarray:
        """Mask of the finished requests that arrived after the warm-up."""
        done = self.table["status"] == FINISHED
        return done & self.after_warmup

    @property
    def after_warmup(self) -> np.ndarray:
        """Mask of the requests that arrived after the warm-up."""
        arrival = self.table["arrival"]
        return np.asarray(arrival >= arrival.min() + self.warmup_s)

    def latency(self, name: str) -> np.ndarray:
        """Return ``ttft_s``, ``tpot_s``, ``e2e_s`` or ``queue_s`` of every request; NaN if none.

        TPOT is (E2E - TTFT) / (output - 1), and undefined for a single token.
        """
        t = self.table
        with np.errstate(invalid="ignore", divide="ignore"):
            if name == "ttft_s":
                return t["first_token"] - t["arrival"]
            if name == "e2e_s":
                return t["finished"] - t["arrival"]
            if name == "queue_s":
                return t["scheduled"] - t["arrival"]
            if name == "tpot_s":
                gaps = np.where(t["output"] > 1, t["output"] - 1, np.nan)
                return (t["finished"] - t["first_token"]) / gaps
        raise InputError(f"unknown latency '{name}'; known: ttft_s, tpot_s, e2e_s, queue_s")

    def statistics(self, name: str, mask: np.ndarray | None = None) -> dict[str, float]:
        """Return ``mean``, ``p50``, ``p90`` and ``p99`` of a latency over counted requests."""
        if name == "itl_s":
            count = self.intervals.count
            mean = self.intervals.total_s / count if count else math.nan
            marks = self.intervals.quantiles([p / 100 for p in PERCENTILES])
            return {"mean": mean, "p50": marks[0], "p90": marks[1], "p99": marks[2]}
        values = self.latency(name)[self.counted if mask is None else self.counted & mask]
        values = values[np.isfinite(values)]
        if not len(values):
            return dict.fromkeys(("mean", "p50", "p90", "p99"), math.nan)
        marks = np.percentile(values, PERCENTILES)
        return {"mean": float(values.mean())} | {
            f"p{p:g}": float(m) for p, m in zip(PERCENTILES, marks, strict=True)
        }

    def interval(self, name: str, statistic: str = "mean") -> tuple[float, float]:
        """Return the 90 % confidence interval of a statistic of a latency, by batch means."""
        values = self.latency(name)[self.counted]
        return batch_interval(values[np.isfinite(values)], statistic)

    def meets(self, slo: SloClass) -> np.ndarray:
        """Return which requests meet every target; a single token meets any TPOT."""
        tpot = np.nan_to_num(self.latency("tpot_s"), nan=0.0)
        with np.errstate(invalid="ignore"):
            met = (self.latency("ttft_s") <= slo.ttft_s) & (tpot <= slo.tpot_s)
            return met & (self.latency("e2e_s") <= slo.e2e_s) & (self.table["status"] == FINISHED)

    def goodput(self, slo: SloClass, mask: np.ndarray | None = None) -> float:
        """Return the requests per second that finish and meet every target."""
        met = self.meets(slo) & self.after_warmup
        if mask is not None:
            met &= mask
        span = self.duration_s - self.warmup_s
        return float(met.sum() / span) if span > 0 else 0.0

    @property
    def utilisation(self) -> float:
        """Share of the time that replicas stood ready in which they computed."""
        up = sum(use.up_s for use in self.replicas)
        return sum(use.busy_s for use in self.replicas) / up if up > 0 else 0.0

    @property
    def energy_j(self) -> float:
        """Energy of all replicas; 0 where no power was given."""
        return sum(use.energy_j for use in self.replicas)

    def counts(self) -> dict[str, int]:
        """Return the number of requests by status."""
        found = np.bincount(self.table["status"], minlength=len(STATUS_NAMES))
        return dict(zip(STATUS_NAMES, found.tolist(), strict=True))

    def lost(self) -> np.ndarray:
        """Return the mask of requests that were rejected, timed out or failed."""
        return np.isin(self.table["status"], (REJECTED, TIMED_OUT, FAILED))
