"""Energy and carbon of a plan, from the activity that its replicas have in each hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.economics.energy import power_w

if TYPE_CHECKING:
    from costsim.planning.plan_result import PlanResult


@dataclass(frozen=True)
class PlanEnergy:
    """What a plan draws in a month, the facility included.

    Args:
        kwh: energy. usd: its price, which rent already contains and ownership adds.
        kg_co2: of its generation, life cycle.
        peak_kw: of IT power in the busiest hour.
        region: of the electricity. pue: of the facility.
        j_per_query: energy of a query.
    """

    kwh: float
    usd: float
    kg_co2: float
    peak_kw: float
    region: str
    pue: float
    j_per_query: float

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return dict(vars(self))


def plan_energy(plan: PlanResult) -> PlanEnergy:
    """Return the energy and carbon of a plan.

    A replica draws P_idle + (P_TDP − P_idle)·activity·use, its use being the load over what it
    carries within the targets; chips that are committed but not in service draw their idle power.
    """
    fleet, found = plan.problem.fleet, plan.solution
    place = plan.options.place()
    hours = np.asarray(fleet.weights, float)
    watts = np.zeros(len(hours))
    in_service = {g: np.zeros(len(hours)) for g in range(len(fleet.offers))}
    for c, pool in enumerate(fleet.pools):
        up = (found.replicas[c] + found.spot[c]).astype(float)
        if not up.any():
            continue
        able = [(w, r) for w, r in enumerate(pool.capacity) if r > 0]
        need = sum((found.served[w, c] / r for w, r in able), np.zeros(len(hours)))
        use = np.minimum(need / np.maximum(up, 1e-12), 1.0)
        kind = plan.problem.hardware[pool.offer]
        activity = plan.problem.candidate(c).activity * use
        watts += up * pool.chips * np.asarray(power_w(kind, activity))
        in_service[pool.offer] += found.replicas[c] * pool.chips
    for g, used in in_service.items():
        own = sum(n for (of, _), n in found.committed.items() if of == g)
        spare = np.maximum(own - used, 0.0)
        watts += spare * float(np.max(power_w(plan.problem.hardware[g], 0.0)))
    kwh = float(watts @ hours) / 1000.0 * float(place.pue)
    return PlanEnergy(
        kwh, kwh * float(place.usd_per_kwh), kwh * float(place.kg_co2_per_kwh),
        float(watts.max()) / 1000.0, place.name, float(place.pue),
        kwh * 3.6e6 / plan.queries_per_month,
    )  # fmt: skip
