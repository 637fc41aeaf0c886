"""A run as its client sent it: the same requests in the simulator, with ramp and end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.errors import InputError
from costsim.serving.arrivals import gamma
from costsim.serving.engine_cost import replica_of
from costsim.serving.results import SimulationResult
from costsim.serving.simulation import simulate
from costsim.serving.traffic import generated
from costsim.validation.benchmarks.run import Array, Run, Statistic, statistic_of

# More requests than these are not simulated: the rest of the run is more of the same.
_MOST = 20_000
_SEED = 0


@dataclass(frozen=True)
class Replayed:
    """What the simulator says of a run.

    Args:
        ttft_s, tpot_s, e2e_s: over the requests.
        requests_per_s, output_tokens_per_s: over the whole run, its ramp and its end included.
        in_flight: mean number of requests sent and not done.
        queue_share: part of TTFT in which the request waited for its turn, the front end left out.
    """

    ttft_s: Statistic
    tpot_s: Statistic
    e2e_s: Statistic
    requests_per_s: float
    output_tokens_per_s: float
    in_flight: float
    queue_share: float


def replay(run: Run, deployment: Deployment, replicas: int = 1) -> Replayed:
    """Return what a deployment is predicted to do with a run's requests.

    Args:
        run: as measured; only its load and its lengths are used.
        deployment: of one replica.
        replicas: that share the requests.

    Raises:
        DoesNotFitError: the weights, or a request, do not fit.
    """
    found, output = simulated(run, deployment, replicas)
    if not found.complete or not np.all(np.isfinite(found.latency("e2e_s"))):
        raise InputError(f"{run.source}: the simulation did not finish all requests")
    return _replayed(found, output, float(deployment.settings.frontend_s))


def simulated(
    run: Run, deployment: Deployment, replicas: int = 1
) -> tuple[SimulationResult, Array]:
    """Return a run's simulation and the tokens of its answers; arguments as in `replay`."""
    prompt, output = lengths(run)
    many, context = len(prompt), int(np.max(prompt) + np.max(output))
    spec = replica_of(deployment, count=replicas, max_context=context)
    limit = int(run.concurrency or 0)
    traffic = generated(
        arrivals(run, many), prompt, output, max_in_flight=limit if limit < many else 0,
        columns=_prefix(deployment, prompt))
    return simulate(spec, traffic), output


def _prefix(deployment: Deployment, prompt: Array) -> dict[str, Array]:
    share = float(deployment.settings.prefix_hit_share)
    if share <= 0:
        return {}
    return {"prefix_tokens": (share * prompt).astype(np.int64),
            "prefix_group": np.zeros(len(prompt), np.int64)}


def _replayed(found: SimulationResult, output: Array, frontend_s: float) -> Replayed:
    first, whole = found.latency("ttft_s"), found.latency("e2e_s")
    span = float(np.max(found.table["finished"]) - np.min(found.table["arrival"]))
    return Replayed(
        statistic_of(first), statistic_of(found.latency("tpot_s")), statistic_of(whole),
        len(whole) / span, float(np.sum(output)) / span, float(np.sum(whole)) / span,
        float(np.sum(found.latency("queue_s") - frontend_s) / np.sum(first)))


def arrivals(run: Run, many: int) -> Array:
    """Return when requests are due, from 0 [s]: at once, or at the offered rate.

    Gaps have the run's coefficient of variation (1 for Poisson, 0 for evenly spaced) and are
    stretched so that the whole takes as long as the rate says.
    """
    if math.isinf(run.request_rate):
        return np.zeros(many)
    even = np.arange(many) / run.request_rate
    if run.arrival_cv <= 0 or many < 2:
        return even
    drawn = gamma(run.request_rate, run.arrival_cv, many, np.random.default_rng(_SEED))
    drawn = np.asarray(drawn) - drawn[0]
    return np.asarray(drawn * (even[-1] / drawn[-1]))


def lengths(run: Run) -> tuple[Array, Array]:
    """Return the tokens of prompts and answers: the run's own where known, else as spread.

    Drawn ones are quantiles in random order, so that few requests too have the run's mean.
    """
    detail = run.detail
    if detail is not None and len(detail) == run.requests:
        prompt, output = detail.input_tokens[:_MOST], detail.output_tokens[:_MOST]
        if np.all(np.isfinite(prompt)) and np.all(np.isfinite(output)):
            order = _order(detail.start_s[:_MOST])
            return _whole(prompt[order]), _whole(output[order])
    many, random = min(run.requests, _MOST), np.random.default_rng(_SEED)
    return (_whole(random.permutation(_spread(run.isl, run.isl_cv, many))),
            _whole(random.permutation(_spread(run.osl, run.osl_cv, many))))


def _order(start: Array) -> Any:
    known = np.where(np.isfinite(start), start, np.arange(len(start), dtype=float))
    return np.argsort(known, kind="stable")


def _whole(tokens: Array) -> Array:
    return np.maximum(np.rint(tokens), 1.0).astype(np.int64)


def _spread(mean: float, cv: float, many: int) -> Array:
    """Return quantiles of lengths with a mean: uniform up to a CV of 1/√3, else gamma."""
    at = (np.arange(many) + 0.5) / many
    if cv <= 0:
        return np.full(many, mean)
    if cv <= 1.0 / math.sqrt(3.0) + 1e-9:
        found = mean * (1.0 + math.sqrt(3.0) * cv * (2.0 * at - 1.0))
    else:
        from scipy.stats import gamma as gamma_law

        found = np.asarray(gamma_law.ppf(at, 1.0 / cv**2, scale=mean * cv**2))
    return np.asarray(found * (mean / np.mean(found)))
