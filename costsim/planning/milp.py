"""The cheapest fleet by mixed-integer linear programming (HiGHS through scipy.optimize.milp).

Hours alike are planned once (`costsim.planning.milp_hours`). Unknowns by hour h: replicas N[c,h] of
each pool c on paid-for chips, spot replicas S[c,h], and the requests y[w,c,h] of demand w that pool
c serves; over all hours: chips R[g,t] committed on hardware g for term t; on-demand chips D[g,h]
fill the gap. See docs/plan.md for the constraints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.planning.fleet import Fleet, Offer, Pool
from costsim.planning.milp_hours import merged
from costsim.planning.milp_matrix import Rows, Variables, build


@dataclass(frozen=True)
class Solution:
    """The cheapest fleet found.

    Args:
        usd: for the period.
        bound_usd: no fleet is cheaper than this (HiGHS's dual bound).
        lp_bound_usd: of the relaxation without whole replicas.
        replicas, spot: by pool and hour.
        committed: chips by offer and term.
        on_demand: chips by offer and hour.
        served: requests/s by demand, pool and hour.
        seconds: of the solver.
    """

    usd: float
    bound_usd: float
    lp_bound_usd: float
    replicas: np.ndarray
    spot: np.ndarray
    committed: dict[tuple[int, str], int]
    on_demand: np.ndarray
    served: np.ndarray
    seconds: float

    @property
    def gap(self) -> float:
        """Relative gap to the solver's bound."""
        return (self.usd - self.bound_usd) / self.usd if self.usd > 0 else 0.0

    @property
    def lp_gap(self) -> float:
        """Relative gap to the bound of the linear relaxation."""
        return (self.usd - self.lp_bound_usd) / self.usd if self.usd > 0 else 0.0


def solve(fleet: Fleet, *, rel_gap: float = 1e-4, time_limit_s: float = 20.0) -> Solution:
    """Return the cheapest fleet.

    Args:
        fleet: offers, pools, demand, limits.
        rel_gap: at which the solver may stop.
        time_limit_s: after which it returns the best it has.

    Raises:
        InputError: nothing carries the load within the limits; the message says which limit.
    """
    import time

    from scipy.optimize import Bounds, LinearConstraint, milp

    start = time.perf_counter()
    whole, (fleet, group) = fleet, merged(fleet)
    variables, rows = build(fleet)
    matrix = rows.matrix(variables.count)
    found = milp(
        variables.cost, integrality=variables.integral,
        bounds=Bounds(np.zeros(variables.count), variables.upper),
        constraints=LinearConstraint(matrix, rows.low, rows.high),
        options={"mip_rel_gap": rel_gap, "time_limit": time_limit_s},
    )  # fmt: skip
    if found.x is None:
        raise InputError(_why(fleet, found.message))
    lower = relaxation(whole).usd
    bound = getattr(found, "mip_dual_bound", None)
    x = np.where(variables.integral > 0, np.round(found.x), found.x)
    return _solution(
        variables, x, group, float(found.fun), float(lower if bound is None else bound), lower,
        time.perf_counter() - start,
    )  # fmt: skip


def _solution(
    v: Variables, x: np.ndarray, group: np.ndarray, usd: float, bound: float, lp: float,
    seconds: float,
) -> Solution:
    terms = {key: int(x[at]) for key, at in v.committed.items() if x[at] > 0.5}
    return Solution(
        usd, min(bound, usd), min(lp, usd), x[v.replicas][:, group].astype(int),
        x[v.spot][:, group].astype(int), terms, x[v.on_demand][:, group],
        x[v.served][:, :, group], seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class Relaxation:
    """The linear relaxation: its cost and what limits are worth at the margin.

    Args:
        usd: for the period.
        chip_usd: by offer, what one more chip saves in the period (0 where there is no shortage).
        power_usd_per_kw, budget_usd_per_usd: what one more kW, one more $ saves.
    """

    usd: float
    chip_usd: dict[str, float]
    power_usd_per_kw: float
    budget_usd_per_usd: float


def relaxation(fleet: Fleet) -> Relaxation:
    """Return the linear relaxation's optimum with its dual values.

    Where hours are merged, starts cost nothing in it: with them, the merged programme's relaxation
    might not be below every schedule.

    Raises:
        InputError: not even fractions of replicas carry the load within the limits.
    """
    from scipy.optimize import linprog

    small, _ = merged(fleet)
    if small is not fleet:
        fleet = merged(replace(fleet, cold_start_h=0.0))[0]
    v, rows = build(fleet)
    upper, equal = rows.split(v.count)
    found = linprog(
        v.cost, upper[0], upper[1], equal[0], equal[1],
        bounds=np.column_stack([np.zeros(v.count), v.upper]), method="highs",
    )  # fmt: skip
    if found.x is None:
        raise InputError(_why(fleet, found.message))
    worth = -np.asarray(found.ineqlin.marginals)
    labels = rows.upper_labels()

    def total(kind: str, index: Any = None) -> float:
        pairs = zip(worth, labels, strict=True)
        return float(sum(w for w, (name, at) in pairs if name == kind and index in (None, at)))

    chips = {
        o.name: total("chips", g) + total("committed chips", g)
        for g, o in enumerate(fleet.offers)
    }  # fmt: skip
    return Relaxation(float(found.fun), chips, 1000.0 * total("power"), total("budget"))


def _why(fleet: Fleet, message: str) -> str:
    """Return one line on which limit makes a fleet impossible."""
    if "time" in message.lower():
        return "plan: the solver ran out of time before it found a fleet; raise the time limit"
    free = tuple(replace(o, limit=np.inf, committed_limit=np.inf) for o in fleet.offers)
    without: dict[str, Fleet] = {
        "the budget": replace(fleet, budget_usd=np.inf),
        "the power cap": replace(fleet, power_cap_w=np.inf),
        "the chip limits": replace(fleet, offers=free),
        "the redundancy": replace(fleet, spare=0, zones=1),
        "the share that may be spot": replace(fleet, max_spot_share=1.0),
    }
    guilty = [name for name, other in without.items() if _feasible(other)]
    peak = fleet.demand.sum(axis=0).max()
    if guilty:
        return f"plan: {peak:g} requests/s cannot be carried within {' or '.join(guilty)}"
    return f"plan: {peak:g} requests/s cannot be carried within the limits taken together"


def _feasible(fleet: Fleet) -> bool:
    from scipy.optimize import linprog

    v, rows = build(fleet)
    upper, equal = rows.split(v.count)
    found = linprog(
        np.zeros(v.count), upper[0], upper[1], equal[0], equal[1],
        bounds=np.column_stack([np.zeros(v.count), v.upper]), method="highs",
    )  # fmt: skip
    return found.x is not None


__all__ = ["Fleet", "Offer", "Pool", "Relaxation", "Rows", "Solution", "relaxation", "solve"]
