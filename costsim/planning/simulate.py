"""Traffic through a simulated fleet of one deployment, with what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costsim.economics.prices import Rent, rent
from costsim.economics.query import SECONDS_PER_HOUR
from costsim.engine.deployment import Deployment
from costsim.errors import InputError, UnstableLoadError
from costsim.planning.choose import best_batch
from costsim.planning.estimate import provenance_of
from costsim.serving.results import SimulationResult
from costsim.serving.traffic import Traffic, load_traffic


@dataclass(frozen=True)
class Simulated:
    """A simulation with its money.

    Args:
        deployment, replicas, router: what served.
        result: of the simulator.
        rent: price of one accelerator.
        capacity_requests_per_s: of the fleet, by the steady state.
        offered_requests_per_s: mean rate of the traffic.
        usd: of the whole run; usd_per_query, usd_per_million_tokens: over what was finished.
    """

    deployment: Deployment
    replicas: int
    router: str
    result: SimulationResult
    rent: Rent
    capacity_requests_per_s: float
    offered_requests_per_s: float
    usd: float
    usd_per_query: float
    usd_per_million_tokens: float

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        d = self.deployment
        low, central, high = (float(v) for v in self.rent)
        return {
            "model": d.model.name, "hardware": d.hardware.name, "layout": str(d.layout),
            "accelerators": int(d.accelerators) * self.replicas, "replicas": self.replicas,
            "router": self.router, "provenance": provenance_of(d), "price": self.rent.note,
            "usd_per_accelerator_hour": [low, central, high],
            "capacity_requests_per_s": self.capacity_requests_per_s,
            "offered_requests_per_s": self.offered_requests_per_s, "usd": self.usd,
            "usd_per_query": self.usd_per_query,
            "usd_per_query_interval": [self.usd_per_query * low / central,
                                       self.usd_per_query * high / central],
            "usd_per_million_tokens": self.usd_per_million_tokens, **self.result.summary(),
        }


def offered_rate(traffic: Traffic) -> float:
    """Return the mean arrival rate of open traffic; 0 for a closed loop or a single request."""
    span = float(traffic.arrival[-1] - traffic.arrival[0]) if len(traffic) > 1 else 0.0
    return (len(traffic) - 1) / span if span > 0 else 0.0


def capacity(deployment: Deployment, traffic: Traffic, replicas: int) -> float:
    """Return the requests per second that a fleet carries at most, by the steady state."""
    isl = max(float(np.mean(traffic.prompt)), 1.0)
    osl = max(float(np.mean(traffic.output)), 1.0)
    return best_batch(deployment, isl=isl, osl=osl).requests_per_s * replicas


def _check_longest(deployment: Deployment, traffic: Traffic) -> None:
    longest = deployment.model.max_context
    tokens = np.asarray(traffic.prompt) + np.asarray(traffic.output)
    if longest and len(tokens) and tokens.max() > longest:
        worst = int(tokens.argmax())
        raise InputError(f"request {worst + 1} of the traffic: {int(tokens[worst])} tokens are "
                         f"longer than the context of {deployment.model.name} ({longest})")


def simulate(
    deployment: Deployment,
    traffic: Traffic | Mapping[str, Any],
    *,
    replicas: int = 1,
    router: str = "least_outstanding",
    seed: int = 0,
    price: str = "on_demand",
    allow_overload: bool = False,
    folder: Path | str = ".",
    scheduler: Mapping[str, Any] | None = None,
    progress: Callable[[float, int, int], None] | None = None,
    **options: Any,
) -> Simulated:
    """Return what happens and what it costs when traffic meets replicas of a deployment.

    Args:
        deployment: what serves.
        traffic: a Traffic, or its table (see the page on serving).
        replicas, router, seed, progress: as in `costsim.serving.simulation.simulate`.
        price: term of the rent.
        allow_overload: simulate a load above the capacity instead of refusing it.
        folder: where a trace named in the table lies.
        scheduler: fields of the scheduler that differ from the engine's settings.
        options: handed to the simulator.

    Raises:
        UnstableLoadError: the offered load is above the capacity, which the message names.
        InputError: a request is longer than the model's context.
    """
    from costsim.serving.engine_cost import replica_of
    from costsim.serving.simulation import simulate as run

    if not isinstance(traffic, Traffic):
        traffic = load_traffic(dict(traffic), folder=folder, seed=seed)
    if options.get("oversize", "error") == "error":
        _check_longest(deployment, traffic)
    most, offered = capacity(deployment, traffic, replicas), offered_rate(traffic)
    closed = traffic.sessions is not None and traffic.sessions.users > 0
    if offered > most and not allow_overload and not closed:
        raise UnstableLoadError(
            f"unstable load: {offered:.3g} requests/s offered to {replicas} replica(s) that carry "
            f"{most:.3g} requests/s of {float(np.mean(traffic.prompt)):.0f} tokens in and "
            f"{float(np.mean(traffic.output)):.0f} out; add replicas or lower the rate"
        )
    spec = replica_of(deployment, count=replicas, **dict(scheduler or {}))
    outcome = run(spec, traffic, router=router, seed=seed, progress=progress, **options)
    return priced(deployment, outcome, replicas, router, price, most, offered)


def priced(
    deployment: Deployment, outcome: SimulationResult, replicas: int, router: str, price: str,
    most: float, offered: float,
) -> Simulated:
    """Return a simulation with its money: accelerator hours times the rent."""
    found = rent(deployment.hardware, price)
    usd = outcome.accelerator_s / SECONDS_PER_HOUR * float(found.central)
    summary = outcome.summary()
    span = float(summary["duration_s"])
    tokens = (float(summary["input_tokens_per_s"]) + float(summary["output_tokens_per_s"])) * span
    return Simulated(deployment, replicas, router, outcome, found, most, offered, usd,
                     usd / max(int(summary["finished"]), 1), usd / max(tokens, 1.0) * 1e6)
