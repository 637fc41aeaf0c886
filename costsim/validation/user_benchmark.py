"""A user's own benchmark against the prediction: how far apart, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.steady_state import OperatingPoint, closed_loop
from costsim.errors import DoesNotFitError
from costsim.kernels.surface_fit import NINETY
from costsim.validation.benchmarks.replay import Replayed, replay
from costsim.validation.benchmarks.run import Run, Statistic

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
METRICS = (*LATENCIES, "requests_per_s", "output_tokens_per_s")
# A mean so many times its median, where the load does not make it so, is a stall of a few requests.
_STALLED = 4.0
# Where the engine completes less than this share of what is offered, a queue grows.
_KEEPS_UP = 0.9


@dataclass(frozen=True)
class Row:
    """One metric of one run.

    Args:
        metric: of `METRICS`.
        measured, predicted: means over the requests (medians where the file has no means).
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
    predicted: Replayed
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        r = self.run
        return {
            "source": r.source, "tool": r.tool, "model": r.model, "load": r.label,
            "batch": self.predicted.in_flight, "requests": r.requests, "failed": r.failed,
            "isl": r.isl, "osl": r.osl, "metadata": dict(r.metadata), "notes": list(self.notes),
            "metrics": [{"metric": m.metric, "measured": m.measured, "predicted": m.predicted,
                         "low": m.interval[0], "high": m.interval[1], "error": m.error,
                         "inside": m.inside} for m in self.rows]}


@dataclass(frozen=True)
class Benchmark:
    """All runs of one's files.

    Args:
        deployment: that was predicted.
        runs: each with its prediction.
        replicas: of the deployment that shared the load.
    """

    deployment: Deployment
    runs: Sequence[Compared] = field(default_factory=list)
    replicas: int = 1

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
        layout = f"{self.replicas} x {d.layout}" if self.replicas > 1 else str(d.layout)
        return {"model": d.model.name, "hardware": d.hardware.name, "layout": layout,
                "engine": d.settings.name, "precision": str(d.precision.ffn),
                "calibration": d.calibration.provenance,
                "summary": self.summary(), "runs": [r.as_dict() for r in self.runs]}


def compare_runs(runs: Sequence[Run], deployment: Deployment, replicas: int = 1) -> Benchmark:
    """Return runs with their predictions.

    Args:
        runs: of `costsim.validation.benchmarks.read.read_runs`.
        deployment: what was measured: model, hardware, layout, data types, engine.
        replicas: of the deployment that shared the load.
    """
    found = [predict(run, deployment, replicas) for run in runs]
    at = steady_states(runs, [p.in_flight / replicas for p, _ in found], deployment)
    return Benchmark(deployment, [_compared(run, *each, at, i) for i, (run, each) in
                                  enumerate(zip(runs, found, strict=True))], replicas)


def predict(run: Run, deployment: Deployment, replicas: int = 1) -> tuple[Replayed, list[str]]:
    """Return what the simulator says of a run, and what is to be said about its load.

    Where the weights or a request do not fit by the memory rule (the run fitted, after all), the
    steady state of a memory large enough is taken at the measured number in flight.
    """
    whole = run.whole or run
    try:
        found = replay(whole, deployment, replicas)
    except DoesNotFitError as error:
        note = (f"{error}: are --tp and --precision what ran? Compared with the steady state of a "
                "memory large enough")
        return _steady(whole, deployment, replicas), [note]
    notes = []
    if whole.concurrency is None and math.isinf(whole.request_rate):
        notes.append(f"all {whole.requests} requests at once: a burst, with its queue and its end")
    elif found.requests_per_s < _KEEPS_UP * whole.request_rate < math.inf and (
            whole.concurrency is None):
        notes.append(f"{whole.request_rate:g} req/s are more than the predicted engine completes: "
                     "its queue grows")
    most = float(closed_loop(deployment, 1.0, max(run.isl, 1.0), max(run.osl, 1.0)).max_batch)
    if found.in_flight / replicas > most >= 1.0:
        notes.append(f"{found.in_flight:.0f} requests are more than fit ({most * replicas:.0f}); "
                     "the rest wait in front of the engine")
    return found, notes


def _steady(run: Run, deployment: Deployment, replicas: int) -> Replayed:
    batch = max(run.in_flight or run.concurrency or float(run.requests), 1.0)
    at = steady_states([run], [batch / replicas], deployment)
    each = {name: Statistic(*2 * (_of(getattr(at, name), 0),)) for name in LATENCIES}
    return Replayed(**each, requests_per_s=replicas * _of(at.requests_per_s, 0),
                    output_tokens_per_s=replicas * _of(at.output_tokens_per_s, 0),
                    in_flight=batch, queue_share=_of(at.waiting_s, 0) / _of(at.ttft_s, 0))


def steady_states(
    runs: Sequence[Run], in_flight: Sequence[float], deployment: Deployment
) -> OperatingPoint:
    """Return the steady states of runs, one element each; ``in_flight`` is of one replica."""
    return closed_loop(
        deployment, np.maximum(np.array(in_flight), 1.0),
        np.array([max(r.isl, 1.0) for r in runs]), np.array([max(r.osl, 1.0) for r in runs]))


def pair(run: Run, predicted: Replayed, metric: str) -> tuple[float, float] | None:
    """Return the measured and the predicted value of a metric, means or medians both.

    None where the metric was not measured.
    """
    ours, theirs = getattr(predicted, metric), getattr(run, metric)
    if metric not in LATENCIES:
        return float(theirs), float(ours)
    stalled = metric == "ttft_s" and _stalled(run, predicted) is not None
    for name in ("p50",) if stalled else ("mean", "p50"):
        measured, value = getattr(theirs, name), getattr(ours, name)
        if measured and measured > 0 and value and value > 0:
            return float(measured), float(value)
    return None


def _stalled(run: Run, predicted: Replayed) -> float | None:
    """Return the mean TTFT over its median where the load does not explain it; else None."""
    measured, ours = run.ttft_s, predicted.ttft_s
    if not (measured.mean and measured.p50 and ours.mean and ours.p50):
        return None
    ratio = measured.mean / measured.p50
    return ratio if ratio > _STALLED * max(ours.mean / ours.p50, 1.0) else None


_ERRORS = {"tpot_s": "log_error_tpot", "e2e_s": "log_error_tpot",
           "requests_per_s": "log_error_throughput", "output_tokens_per_s": "log_error_throughput"}


def _log_error(metric: str, found: Replayed, at: OperatingPoint, index: int) -> float:
    """Return a metric's standard deviation; of TTFT's queue it is that of the throughput."""
    if metric != "ttft_s":
        return _of(getattr(at, _ERRORS[metric]), index)
    queue, rest = found.queue_share, 1.0 - found.queue_share
    return (queue * _of(at.log_error_throughput, index) + rest * _of(at.log_error_ttft, index))


def _compared(
    run: Run, found: Replayed, notes: Sequence[str], at: OperatingPoint, index: int
) -> Compared:
    rows = []
    for metric in METRICS:
        both = pair(run, found, metric)
        if both is not None:
            rows.append(Row(metric, *both, _log_error(metric, found, at, index)))
    more = [*notes, *run.notes]
    if run.ttft_s.mean is None and run.ttft_s.p50 is not None:
        more.append("medians: the file has no means")
    ratio = _stalled(run, found)
    if ratio is not None:
        more.append(f"the mean TTFT is {ratio:.0f} times the median, which the load does not "
                    "explain: was the engine warmed up? Medians are compared")
    if run.failed:
        more.append(f"{run.failed} requests failed and are left out")
    return Compared(run, found, tuple(rows), tuple(more))


def _of(values: Any, index: int) -> float:
    array = np.asarray(values, float)
    return float(array[index] if array.ndim else array)
