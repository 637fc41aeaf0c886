"""A user's own benchmark against the prediction: how far apart, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.steady_state import OperatingPoint, closed_loop, operating_point
from costsim.kernels.surface_fit import NINETY
from costsim.validation.benchmarks.run import Run

METRICS = ("ttft_s", "tpot_s", "e2e_s", "requests_per_s", "output_tokens_per_s")
# With fewer in flight than this share of its limit, a closed loop was not full: it was too short.
_FULL = 0.85
# Operating points between one request and the largest batch, to find the one of a request rate.
_GRID = 48


@dataclass(frozen=True)
class Load:
    """What a run's load means for the steady state.

    Args:
        batch: requests in flight.
        queued: whether requests waited for a place before the first token: TTFT is not compared.
        notes: what was assumed.
    """

    batch: float
    queued: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One metric of one run.

    Args:
        metric: of `METRICS`.
        measured, predicted: means over the requests.
        log_error: predicted standard deviation of log(measured / predicted).
    """

    metric: str
    measured: float
    predicted: float
    log_error: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 90 % interval."""
        wide = math.exp(NINETY * self.log_error)
        return self.predicted / wide, self.predicted * wide

    @property
    def inside(self) -> bool:
        """Whether the measured value lies in the interval."""
        low, high = self.interval
        return low <= self.measured <= high


@dataclass(frozen=True)
class Compared:
    """One run and its prediction."""

    run: Run
    load: Load
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        r = self.run
        return {
            "source": r.source, "tool": r.tool, "model": r.model, "load": r.label,
            "batch": self.load.batch, "requests": r.requests, "failed": r.failed, "isl": r.isl,
            "osl": r.osl, "metadata": dict(r.metadata), "notes": list(self.notes),
            "metrics": [{"metric": m.metric, "measured": m.measured, "predicted": m.predicted,
                         "low": m.interval[0], "high": m.interval[1], "error": m.error,
                         "inside": m.inside} for m in self.rows]}


@dataclass(frozen=True)
class Benchmark:
    """All runs of one's files.

    Args:
        deployment: that was predicted.
        runs: each with its prediction.
    """

    deployment: Deployment
    runs: Sequence[Compared] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return median error, bias and share inside the interval, by metric."""
        found = {}
        for metric in METRICS:
            rows = [m for r in self.runs for m in r.rows if m.metric == metric]
            if rows:
                errors = np.array([math.log(m.predicted / m.measured) for m in rows])
                found[metric] = {
                    "runs": len(rows), "median": float(np.median(np.expm1(np.abs(errors)))),
                    "worst": float(np.max(np.expm1(np.abs(errors)))),
                    "bias": float(np.expm1(np.median(errors))),
                    "inside": float(np.mean([m.inside for m in rows]))}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        d = self.deployment
        return {"model": d.model.name, "hardware": d.hardware.name, "layout": str(d.layout),
                "engine": d.settings.name, "calibration": d.calibration.provenance,
                "summary": self.summary(), "runs": [r.as_dict() for r in self.runs]}


def load_of(run: Run, deployment: Deployment) -> Load:
    """Return the batch at which the steady state is compared with a run.

    A closed loop keeps its concurrency in flight; a request rate fills the batch at which the
    engine completes as many; requests sent all at once are in flight as Little's law says.
    """
    isl, osl = max(run.isl, 1.0), max(run.osl, 1.0)
    most = float(operating_point(deployment, 1.0, isl, osl).max_batch)
    notes: list[str] = []
    if most < 1.0:
        notes.append(f"not even one such request fits {deployment.layout} on "
                     f"{deployment.hardware.name}: are --tp and --precision what ran?")
    if not run.concurrency and math.isinf(run.request_rate):
        batch = min(run.in_flight or float(run.requests), float(run.requests))
        notes.append(f"all requests at once: compared at {batch:.0f} in flight on average; "
                     "TTFT is their queue")
        return _held(batch, most, True, notes)
    batch = run.concurrency or math.inf
    if run.concurrency and run.in_flight and run.in_flight < _FULL * run.concurrency:
        batch = max(run.in_flight, 1.0)
        if math.isinf(run.request_rate):
            notes.append(f"only {batch:.1f} requests in flight on average: too few for the loop "
                         "to be full; compared at that")
    if not math.isinf(run.request_rate):
        filled, over = _batch_at(run.request_rate, deployment, isl, osl, most)
        if over and batch >= filled:
            notes.append(f"offered {run.request_rate:g} req/s are above the predicted capacity; "
                         "TTFT is a growing queue")
            return Load(filled, True, tuple(notes))
        batch = min(batch, filled)
    return _held(batch, most, False, notes)


def _held(batch: float, most: float, queued: bool, notes: list[str]) -> Load:
    if batch > most >= 1.0:
        notes.append(f"{batch:.0f} requests are more than fit ({most:.0f}); the rest wait in "
                     "front of the engine")
    return Load(max(batch, 1.0), queued, tuple(notes))


def _batch_at(
    rate: float, deployment: Deployment, isl: float, osl: float, most: float
) -> tuple[float, bool]:
    """Return the batch that completes so many requests a second, and whether none does."""
    batches = np.geomspace(1.0, max(most, 1.0), _GRID)
    rates = np.asarray(operating_point(deployment, batches, isl, osl).requests_per_s, float)
    if rate > rates.max():
        return float(batches[int(np.argmax(rates))]), True
    return float(np.interp(rate, np.maximum.accumulate(rates), batches)), False


def points(runs: Sequence[Run], loads: Sequence[Load], deployment: Deployment) -> OperatingPoint:
    """Return the steady states of runs, one element each."""
    return closed_loop(
        deployment, np.array([each.batch for each in loads]),
        np.array([max(r.isl, 1.0) for r in runs]), np.array([max(r.osl, 1.0) for r in runs]))


def compare_runs(runs: Sequence[Run], deployment: Deployment) -> Benchmark:
    """Return runs with their predictions.

    Args:
        runs: of `costsim.validation.benchmarks.read.read_runs`.
        deployment: what was measured: model, hardware, layout, data types, engine.
    """
    loads = [load_of(run, deployment) for run in runs]
    at = points(runs, loads, deployment)
    return Benchmark(deployment, [_compared(run, load, at, i)
                                  for i, (run, load) in enumerate(zip(runs, loads, strict=True))])


def measured(run: Run, load: Load, metric: str) -> float | None:
    """Return the measured value of a metric; None where it is missing or not comparable."""
    if metric in ("requests_per_s", "output_tokens_per_s"):
        return float(getattr(run, metric))
    if load.queued and metric != "tpot_s":
        return None
    value: float | None = getattr(run, metric).central
    return value if value and value > 0 else None


_ERRORS = {"ttft_s": "log_error_ttft", "tpot_s": "log_error_tpot", "e2e_s": "log_error_tpot",
           "requests_per_s": "log_error_throughput", "output_tokens_per_s": "log_error_throughput"}


def _compared(run: Run, load: Load, at: OperatingPoint, index: int) -> Compared:
    rows = []
    for metric in METRICS:
        found = measured(run, load, metric)
        if found is not None:
            rows.append(Row(metric, found, _of(getattr(at, metric), index),
                            _of(getattr(at, _ERRORS[metric]), index)))
    notes = [*load.notes, *run.notes]
    if run.ttft_s.mean is None and run.ttft_s.p50 is not None:
        notes.append("medians: the file has no means")
    if run.failed:
        notes.append(f"{run.failed} requests failed")
    return Compared(run, load, tuple(rows), tuple(notes))


def _of(values: Any, index: int) -> float:
    array = np.asarray(values, float)
    return float(array[index] if array.ndim else array)
