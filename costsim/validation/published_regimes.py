"""What an engine does in the regimes in which published figures are measured."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.memory import memory_budget, request_kv_bytes
from costsim.engine.search import Found, search
from costsim.engine.steady_state import operating_point
from costsim.engine.step import step_time
from costsim.errors import DoesNotFitError, InputError
from costsim.serving.arrivals import poisson
from costsim.serving.engine_cost import replica_of
from costsim.serving.pool import ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import Chunk, DecodeLine, StepCost
from costsim.serving.traffic import generated
from costsim.validation.published_case import Case

_NODE = 8
_RATE_STEPS = 7
_LIMIT_REQUESTS = 2000
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Predicted:
    """A prediction of one published figure.

    Args:
        value: in the figure's unit.
        log_error: standard deviation of log(actual / predicted).
        layout: of a replica; batch: requests it runs at once.
        bottleneck: of the step.
    """

    value: float
    log_error: float
    layout: str
    batch: float
    bottleneck: str = ""


def predict(case: Case) -> Predicted:
    """Return the prediction of a point in its regime.

    Raises:
        InputError: the model does not fit, or the point lacks what its regime needs.
    """
    return _REGIMES[case.point.regime](case)


def _fitting(deployment: Deployment, context: float) -> int:
    """Return the requests of full length that the cache of one attention group holds.

    TensorRT-LLM admits only what can run to its end (GUARANTEED_NO_EVICT is the default).
    """
    budget = memory_budget(deployment)
    each = float(np.max(np.asarray(request_kv_bytes(deployment, context))))
    most = int(float(np.max(budget.kv_cache_bytes)) // each) if np.all(budget.fits) else 0
    if most < 1:
        raise DoesNotFitError(f"{deployment.model.name} does not fit with {context:.0f} tokens on "
                              f"{deployment.layout} x {deployment.hardware.name}")
    return min(most, deployment.settings.max_num_seqs)


class PaddedCost:
    """Steps of an engine whose decode batches are padded to the sizes of its captured graphs.

    Linear layers and experts work on the padded batch, attention on the real contexts. Steps with
    prompts replay no graph.

    Args:
        cost: without padding.
        sizes: of the graphs; batches beyond the largest are not padded.
    """

    def __init__(self, cost: StepCost, sizes: Sequence[int]) -> None:
        self.cost, self.sizes = cost, sorted(sizes)

    def decode(self, batch: int) -> DecodeLine:
        """Return the time of decode steps of a batch over its total context."""
        at = bisect_left(self.sizes, batch)
        return self.cost.decode(self.sizes[at] if at < len(self.sizes) else batch)

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        """Return the time of a step that also reads prompts."""
        return self.cost.mixed(batch, context, chunks)


def _with_graphs(spec: ReplicaSpec, sizes: Sequence[int], most: int) -> ReplicaSpec:
    """Return a replica whose decode batches are padded to the sizes up to the largest needed."""
    fitting = [size for size in sizes if size < 2 * most]
    if not fitting:
        return spec
    padded = PaddedCost(spec.cost, fitting)
    lockstep = copy(spec.lockstep)
    if lockstep is not None:
        lockstep.cost = padded  # type: ignore[attr-defined]
    return replace(spec, cost=padded, lockstep=lockstep)


def _run(
    deployment: Deployment, case: Case, arrivals: np.ndarray, running: int
) -> SimulationResult:
    """Return the simulation of a replica; ``running`` requests at once on each of its ranks."""
    isl, osl = (max(1, round(x)) for x in (case.point.isl, case.point.osl))
    stages = int(deployment.layout.pp)
    most = max(running // stages, 1)
    spec = replica_of(deployment, max_context=isl + osl, max_num_seqs=most)
    if deployment.settings.cuda_graphs:
        spec = _with_graphs(spec, case.point.document.graph_sizes, most)
    many = len(arrivals)
    return simulate(spec, generated(arrivals, np.full(many, isl), np.full(many, osl)))


def _result(case: Case, deployment: Deployment, value: float, batch: float) -> Predicted:
    """Return a prediction with the interval of the steady state at its batch.

    What the figures that are left neutral would change (host time, overlap) is not known from
    kernels: its size at this operating point widens the interval.
    """
    at = (max(batch, 1.0), case.point.isl, case.point.osl)
    point = operating_point(deployment, *at)
    error = {"ttft_s": point.log_error_ttft, "tpot_s": point.log_error_tpot}.get(
        case.point.quantity, point.log_error_throughput)
    other = operating_point(deployment.with_changes(settings=case.fitted), *at)
    name = (case.point.quantity if case.point.quantity in ("ttft_s", "tpot_s")
            else "output_tokens_per_s")
    unknown = float(np.log(getattr(other, name) / getattr(point, name)))
    return Predicted(value, float(np.hypot(error, unknown)), str(deployment.layout), batch,
                     str(point.bottleneck))


def _replica(case: Case) -> Deployment:
    if case.point.layout is None:
        raise InputError(f"{case.point.id}: this regime needs a layout")
    return case.deploy(case.point.layout)


def _value(case: Case, run: SimulationResult) -> float:
    """Return the point's quantity in a simulated run."""
    point = case.point
    if point.quantity == "output_tokens_per_s":
        return len(run) * point.osl / float(np.max(run.latency("e2e_s")))
    return float(np.nanmean(run.latency(point.quantity)))


def _burst(case: Case) -> Predicted:
    deployment, point = _replica(case), case.point
    running, ranks = _fitting(deployment, point.isl + point.osl), int(deployment.layout.dp)
    requests = int(point.requests or running * ranks)
    run = _run(deployment, case, np.zeros(requests), running)
    return _result(case, deployment, _value(case, run), min(running * ranks, requests))


def _static(case: Case) -> Predicted:
    """Return a batch that is read together and decoded to its end, nothing joining it."""
    deployment, point = _replica(case), case.point
    batch = float(point.batch or 1.0)
    first = float(step_time(deployment, prefill_requests=batch,
                            prefill_tokens=point.isl).seconds)
    each = float(step_time(deployment, decode_requests=batch,
                           decode_context=point.isl + 0.5 * point.osl).seconds)
    total = first + (point.osl - 1.0) * each
    values = {"ttft_s": first, "tpot_s": each, "output_tokens_per_s": batch * point.osl / total}
    return _result(case, deployment, values[point.quantity], batch)


def _online(case: Case) -> Predicted:
    deployment, point = _replica(case), case.point
    running = _fitting(deployment, point.isl + point.osl)
    arrivals = poisson(float(point.rate or 1.0), int(point.requests or 500),
                       np.random.default_rng(0))
    run = _run(deployment, case, arrivals, running)
    in_flight = min(float(np.nanmean(run.latency("e2e_s"))) * float(point.rate or 1.0),
                    running * int(deployment.layout.dp))
    return _result(case, deployment, _value(case, run), in_flight)


def _search(case: Case, most: int, ttft_s: float, tpot_s: float) -> Found:
    point = case.point
    return search(case.model, case.hardware, point.isl, point.osl, most, ttft_s, tpot_s,
                  [point.precision], case.settings, calibration=case.calibration)


def _best(
    case: Case, ttft_s: float = np.inf, tpot_s: float = np.inf
) -> tuple[Deployment, int, float]:
    """Return the best replica within a node, how many fit the accelerators, and its batch."""
    point = case.point
    try:
        found = _search(case, min(point.accelerators, _NODE), ttft_s, tpot_s)
    except DoesNotFitError:
        found = _search(case, point.accelerators, ttft_s, tpot_s)
    if point.layout is not None:
        wanted = point.layout
        same = ((found.tp == wanted.tp) & (found.pp == wanted.pp) & (found.ep == wanted.ep)
                & (found.dp == wanted.dp))
        found = replace(found, meets=found.meets & same)
    best = found.best()
    deployment = found.at(best)
    return (deployment, point.accelerators // int(deployment.accelerators),
            float(found.batch[best]))


def _saturated(case: Case) -> Predicted:
    deployment, replicas, batch = _best(case)
    point = operating_point(deployment, batch, case.point.isl, case.point.osl)
    return _result(case, deployment, float(point.output_tokens_per_s) * replicas, batch)


def _limits(case: Case) -> Predicted:
    """Return the highest Poisson rate at which the 99th percentiles stay within the limits."""
    point = case.point
    if point.ttft_p99_s is None or point.tpot_p99_s is None:
        raise InputError(f"{point.id}: this regime needs limits of latency")
    deployment, replicas, batch = _best(case, ttft_s=point.ttft_p99_s, tpot_s=point.tpot_p99_s)
    most = float(operating_point(deployment, batch, point.isl, point.osl).requests_per_s)
    running = _fitting(deployment, point.isl + 0.5 * point.osl)
    random = np.random.default_rng(0)
    many = int(np.clip(_LIMIT_SECONDS * most, 200, _LIMIT_REQUESTS))
    gaps = poisson(1.0, many, random)
    low, high = 0.3, 1.1
    for _ in range(_RATE_STEPS):
        middle = 0.5 * (low + high)
        run = _run(deployment, case, gaps / (middle * most), running)
        ttft, tpot = (run.statistics(name)["p99"] for name in ("ttft_s", "tpot_s"))
        held = ttft <= point.ttft_p99_s and tpot <= point.tpot_p99_s
        low, high = (middle, high) if held else (low, middle)
    return _result(case, deployment, low * most * replicas * point.osl, batch)


def _prefill(case: Case) -> Predicted:
    """Return a step that reads ``batch`` prompts, or the rate of prompt tokens."""
    deployment, point = _replica(case), case.point
    batch = float(point.batch or deployment.settings.max_num_batched_tokens
                  * float(deployment.layout.dp) / point.isl)
    step = step_time(deployment, prefill_requests=batch, prefill_tokens=point.isl)
    seconds = float(step.seconds)
    value = batch * point.isl / seconds if point.throughput else seconds
    return Predicted(value, float(np.hypot(step.log_error, deployment.settings.log_error_ttft)),
                     str(deployment.layout), batch, _bottleneck(step))


def _decode(case: Case) -> Predicted:
    """Return a decode step of ``batch`` requests at context ISL + OSL/2, or its token rate."""
    deployment, point = _replica(case), case.point
    batch = float(point.batch or 1.0)
    step = step_time(deployment, decode_requests=batch, decode_context=point.isl + 0.5 * point.osl)
    seconds = float(step.seconds)
    return Predicted(batch / seconds if point.throughput else seconds,
                     float(np.hypot(step.log_error, deployment.settings.log_error_tpot)),
                     str(deployment.layout), batch, _bottleneck(step))


def _bottleneck(step: Any) -> str:
    return str(max(step.by_resource, key=lambda name: float(np.max(step.by_resource[name]))))


_REGIMES: dict[str, Callable[[Case], Predicted]] = {
    "burst": _burst, "static": _static, "online": _online, "saturated": _saturated,
    "limits": _limits, "prefill": _prefill, "decode": _decode,
}
