"""Who the bill of a simulated run is for: tokens, cached tokens, idling, lost work, cold starts."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from costsim.economics.allocation import Usage, allocate
from costsim.economics.query import SECONDS_PER_HOUR
from costsim.engine.deployment import Deployment
from costsim.engine.steady_state import operating_point
from costsim.planning.cached import cached_time_share
from costsim.serving.requests import FINISHED
from costsim.serving.results import SimulationResult


def usage_of_run(
    deployment: Deployment, result: SimulationResult, cold_start_s: float = 0.0
) -> Usage:
    """Return how the accelerator-seconds of a simulated run were spent.

    Busy time is split between prompts and answers as the engine does at the mean batch; prompts
    that were read more often than served (failures, preemptions) are lost work; the time that
    attention spends on tokens found in the cache is the cached tokens'.

    Args:
        deployment: what every replica ran.
        result: of `costsim.serving.simulation.simulate`.
        cold_start_s: replica-seconds of starting that are within the time held.
    """
    each = result.accelerators / max(len(result.replicas), 1)
    busy = sum(use.busy_s for use in result.replicas) * each
    paid = max(result.accelerator_s, busy)
    share = _prompt_share(deployment, result)
    lost = busy * share * _read_again(result)
    start = min(cold_start_s * each, paid - busy)
    return Usage(paid, busy, share, _cached_share(deployment, result), lost, start)


def bill_of_run(
    deployment: Deployment, result: SimulationResult, usd_per_hour: float,
    cold_start_s: float = 0.0,
) -> dict[str, Decimal]:
    """Return the bill of a simulated run by what it is for, adding up to it to the cent.

    Args:
        deployment, result, cold_start_s: as in `usage_of_run`.
        usd_per_hour: of one accelerator.
    """
    usage = usage_of_run(deployment, result, cold_start_s)
    return allocate(usage.paid_s / SECONDS_PER_HOUR * usd_per_hour, usage)


def _done(result: SimulationResult) -> np.ndarray:
    return np.asarray(result.table["status"] == FINISHED)


def _prompt_share(deployment: Deployment, result: SimulationResult) -> float:
    done = _done(result)
    if not done.any():
        return 0.0
    busy = sum(use.busy_s for use in result.replicas)
    batch = sum(use.mean_batch * use.busy_s for use in result.replicas) / max(busy, 1e-300)
    table = result.table
    point = operating_point(
        deployment, batch=max(batch, 1.0), isl=max(float(table["prompt"][done].mean()), 1.0),
        osl=max(float(table["output"][done].mean()), 1.0),
    )  # fmt: skip
    return float(np.clip(point.input_time_share, 0.0, 1.0))


def _read_again(result: SimulationResult) -> float:
    """Return the share of the prompt tokens read that no finished request needed."""
    read = sum(use.prompt_tokens for use in result.replicas)
    done = _done(result)
    needed = int((result.table["prompt"] - result.table["cached"])[done].sum())
    return max(0.0, 1.0 - needed / read) if read else 0.0


def _cached_share(deployment: Deployment, result: SimulationResult) -> float:
    """Return the share of the prompts' time that attention to cached tokens takes."""
    done = _done(result)
    cached = float(result.table["cached"][done].mean()) if done.any() else 0.0
    new = float((result.table["prompt"] - result.table["cached"])[done].mean()) if cached else 1.0
    return cached_time_share(deployment, new, cached)
