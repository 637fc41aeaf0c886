"""Cost per query against load: whole replicas are paid for, whether they are busy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.economics.query import SECONDS_PER_HOUR
from costsim.planning.choose import Choice


@dataclass(frozen=True)
class LoadCurve:
    """What one deployment costs at each load.

    Args:
        name: to show.
        requests_per_s: offered load.
        replicas: whole replicas that carry it.
        usd_per_query: fleet cost over the load; NaN above the capacity of the fleet.
        capacity_requests_per_s: of the largest fleet allowed.
        accelerators: of one replica.
        usd_per_replica_s: what one replica costs in a second.
        floor_usd: $ per query of a fully loaded replica.
    """

    name: str
    requests_per_s: Any
    replicas: Any
    usd_per_query: Any
    capacity_requests_per_s: float
    accelerators: int
    usd_per_replica_s: float
    floor_usd: float

    def without_steps(self, requests_per_s: Any) -> Any:
        """Return $ per query but for the steps of whole replicas: max(F/load, floor)."""
        return np.maximum(self.usd_per_replica_s / requests_per_s, self.floor_usd)


def load_curve(
    name: str, choice: Choice, usd_per_accelerator_hour: float, requests_per_s: Any,
    fleet_accelerators: float = np.inf,
) -> LoadCurve:
    """Return cost against load for whole replicas of a chosen deployment.

    Args:
        name: to show.
        choice: deployment, its batch and what one replica carries within the targets.
        usd_per_accelerator_hour: rent.
        requests_per_s: loads.
        fleet_accelerators: how many can be had.
    """
    load = np.asarray(requests_per_s, float)
    size = int(choice.deployment.accelerators)
    replicas = np.maximum(np.ceil(load / choice.requests_per_s - 1e-12), 1.0)
    most = np.floor(fleet_accelerators / size)
    replica = size * usd_per_accelerator_hour / SECONDS_PER_HOUR
    cost = np.where(replicas <= most, replicas * replica / load, np.nan)
    return LoadCurve(name, load, replicas, cost, float(most * choice.requests_per_s), size,
                     replica, replica / choice.requests_per_s)


@dataclass(frozen=True)
class Crossover:
    """A load at which one deployment becomes cheaper than another."""

    cheaper_below: str
    cheaper_above: str
    requests_per_s: float


def crossovers(first: LoadCurve, second: LoadCurve) -> list[Crossover]:
    """Return the load at which one deployment becomes cheaper than the other, if there is one.

    With F the cost of one replica per second and X what it carries, cost per query follows
    max(F/load, F/X), but for the steps of whole replicas. Two such curves cross once: the one
    with the smaller replica wins below load F2·X1/F1, where its floor meets the other's slope.
    """
    small, large = sorted((first, second), key=lambda c: c.usd_per_replica_s)
    if small.floor_usd <= large.floor_usd * (1 + 1e-9):
        return []
    load = large.usd_per_replica_s / small.floor_usd
    if load > min(small.capacity_requests_per_s, large.capacity_requests_per_s):
        return []
    return [Crossover(small.name, large.name, load)]
