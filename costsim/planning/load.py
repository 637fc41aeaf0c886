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
    """

    name: str
    requests_per_s: Any
    replicas: Any
    usd_per_query: Any
    capacity_requests_per_s: float
    accelerators: int


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
    usd_per_s = replicas * size * usd_per_accelerator_hour / SECONDS_PER_HOUR
    cost = np.where(replicas <= most, usd_per_s / load, np.nan)
    return LoadCurve(name, load, replicas, cost, float(most * choice.requests_per_s), size)


@dataclass(frozen=True)
class Crossover:
    """A load at which one deployment becomes cheaper than another."""

    cheaper_below: str
    cheaper_above: str
    requests_per_s: float


def crossovers(first: LoadCurve, second: LoadCurve) -> list[Crossover]:
    """Return the loads at which two curves change places for good (steps that last one grid
    point or are undone by the next replica are left out).

    Both curves stand on the same loads.
    """
    a, b = np.asarray(first.usd_per_query), np.asarray(second.usd_per_query)
    both = np.isfinite(a) & np.isfinite(b)
    # Steps of whole replicas make curves cross many times; their envelope decides.
    sign = np.where(np.abs(a / b - 1.0) < 1e-9, 0.0, np.sign(a - b))
    lasting: list[Crossover] = []
    last = 0.0
    for i in np.flatnonzero(both):
        if sign[i] == 0 or sign[i] == last:
            continue
        ahead = sign[i : i + 5][both[i : i + 5]]
        if last and np.all(ahead == sign[i]):
            below, above = (second, first) if sign[i] < 0 else (first, second)
            load = float(np.sqrt(first.requests_per_s[i] * first.requests_per_s[i - 1]))
            lasting.append(Crossover(below.name, above.name, load))
        if not last or np.all(ahead == sign[i]):
            last = sign[i]
    return lasting
