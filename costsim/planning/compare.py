"""Deployments side by side, each at its best layout, and the loads where they change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.planning.choose import Choice, best_batch, choose
from costsim.planning.estimate import Estimate, estimate_deployment
from costsim.planning.load import Crossover, LoadCurve, crossovers, load_curve
from costsim.planning.targets import Target

LOADS_PER_DECADE = 60


@dataclass(frozen=True)
class Comparison:
    """Deployments compared for one workload.

    Args:
        names: of the deployments.
        choices: best layout and batch of each.
        estimates: of each at that batch.
        curves: cost against load of each.
        crossovers: between every pair.
    """

    names: tuple[str, ...]
    choices: tuple[Choice, ...]
    estimates: tuple[Estimate, ...]
    curves: tuple[LoadCurve, ...]
    crossovers: tuple[Crossover, ...]

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {
            "deployments": [{"name": n, **e.as_dict()}
                            for n, e in zip(self.names, self.estimates, strict=True)],
            "crossovers": [vars(c) for c in self.crossovers],
            "capacity_requests_per_s": {c.name: c.capacity_requests_per_s for c in self.curves},
        }


def compare(
    deployments: Sequence[tuple[str, Deployment]], *, isl: float, osl: float,
    target: Target | None = None, price: str = "on_demand", max_accelerators: int = 64,
    fleet_accelerators: float = np.inf, fixed_layouts: bool = False, batch: int | None = None,
) -> Comparison:
    """Return deployments side by side.

    Args:
        deployments: names and deployments.
        isl, osl: tokens of a request.
        target: latencies to meet.
        price: term of the rent.
        max_accelerators: of one replica.
        fleet_accelerators: accelerators of a kind that can be had.
        fixed_layouts: keep the layouts that the deployments have.
        batch: requests in flight; None: the best.
    """
    limit = int(min(max_accelerators, fleet_accelerators))
    choices = tuple(_choose(d, isl, osl, target, limit, fixed_layouts, batch)
                    for _, d in deployments)
    estimates = tuple(estimate_deployment(c.deployment, batch=c.batch, isl=isl, osl=osl,
                                          price=price) for c in choices)
    names = tuple(name for name, _ in deployments)
    curves = curves_of(names, choices, estimates, fleet_accelerators)
    found = [x for i, a in enumerate(curves) for b in curves[i + 1:] for x in crossovers(a, b)]
    return Comparison(names, choices, estimates, curves, tuple(found))


def _choose(d: Deployment, isl: float, osl: float, target: Target | None, limit: int,
            fixed: bool, batch: int | None) -> Choice:
    if not fixed and batch is None:
        return choose(d, isl=isl, osl=osl, target=target, max_accelerators=limit)
    if batch is None:
        return best_batch(d, isl=isl, osl=osl, target=target)
    found = estimate_deployment(d, batch=batch, isl=isl, osl=osl)
    return Choice(d, batch, float(found.point.requests_per_s), 1, True)


def curves_of(names: Sequence[str], choices: Sequence[Choice], estimates: Sequence[Estimate],
              fleet_accelerators: float) -> tuple[LoadCurve, ...]:
    """Return cost against load of each, on loads from a hundredth of the smallest replica to the
    largest fleet (or thirty of the largest replica)."""
    rates = [c.requests_per_s for c in choices]
    sizes = [int(c.deployment.accelerators) for c in choices]
    most = [r * (fleet_accelerators // s if np.isfinite(fleet_accelerators) else 30)
            for r, s in zip(rates, sizes, strict=True)]
    low, high = min(rates) / 100, max(max(most), max(rates))
    count = int(LOADS_PER_DECADE * max(np.log10(high / low), 1.0)) + 1
    loads = np.logspace(np.log10(low), np.log10(high), count)
    return tuple(load_curve(n, c, float(e.rent.central), loads, fleet_accelerators)
                 for n, c, e in zip(names, choices, estimates, strict=True))
