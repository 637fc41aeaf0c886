"""What is uncertain about a plan: names, usual distributions, and a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from costsim.errors import unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.planning.distributions import Distribution, lognormal
from costsim.planning.plan_worth import spend_by_offer

if TYPE_CHECKING:
    from costsim.planning.plan_result import PlanResult

GROWTH = Distribution("lognormal", 0.8, 1.25)
LENGTHS = Distribution("lognormal", 0.9, 1.0 / 0.9)
HITS = Distribution("triangular", 0.7, 1.1, 1.0)
INTERRUPTIONS = Distribution("lognormal", 0.5, 2.0)
_BY_DEMAND = ("traffic growth", "prompt length", "answer length", "prefix hits")
_TERMS = ("on_demand", "spot", "reserved_1y", "reserved_3y", "owned")


def input_of(drawn: Mapping[str, np.ndarray], kind: str, demand: str) -> np.ndarray:
    """Return the draws of an input for a demand: its own where it has one, else the common one."""
    own = f"{kind} of {demand}"
    return drawn[own] if own in drawn else drawn[kind]


def plan_inputs(plan: PlanResult, everything: bool = False) -> dict[str, Distribution]:
    """Return the uncertain inputs of a plan, factors on what was planned with.

    Traffic growth (90 % within 0.8 to 1.25), lengths (0.9 to 1.11), prefix hits (0.7 to 1.1) and
    spot interruptions (0.5 to 2) are assumptions to be replaced by one's own; calibration error is
    the engine's, prices range as their quotes do.

    Args:
        plan: whose inputs.
        everything: those of all hardware that may be used, not of that in use alone.
    """
    found = {"traffic growth": GROWTH, "prompt length": LENGTHS, "answer length": LENGTHS}
    if any(d.prefix_hit_share > 0 for d in plan.problem.demands):
        found["prefix hits"] = HITS
    if plan.solution.spot.any():
        found["interruptions"] = INTERRUPTIONS
    fleet, errors = plan.problem.fleet, dict[str, float]()
    for c, pool in enumerate(fleet.pools):
        if everything or plan.solution.replicas[c].any() or plan.solution.spot[c].any():
            name = fleet.offers[pool.offer].name
            errors[name] = max(errors.get(name, 0.0), plan.problem.candidate(c).log_error)
    for g, _ in plan.solution.committed:
        errors.setdefault(fleet.offers[g].name, 0.0)
    for name in sorted(errors):
        found[f"calibration of {name}"] = lognormal(errors[name])
        found[f"price of {name}"] = _price_range(plan, name)
    found |= _given(plan, found)
    names = [d.name for d in plan.problem.demands]
    idle = [kind for kind in _BY_DEMAND if all(f"{kind} of {name}" in found for name in names)]
    return {name: d for name, d in found.items() if name not in idle}


def _given(plan: PlanResult, found: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """Return the plan's own distributions by the names of the inputs they replace or add."""
    used = {name.replace(" ", "_"): name for name in found}
    hardware = [h.name for h in plan.problem.hardware]
    added = [f"{kind} of {d.name}" for d in plan.problem.demands for kind in _BY_DEMAND]
    priced = [f"{t} price of {h}" for h in hardware for t in _TERMS]
    idle = [f"{kind} of {h}" for h in hardware for kind in ("price", "calibration")]
    names = {name.replace(" ", "_"): name for name in (*added, *priced)} | used
    silent = {n.replace(" ", "_") for n in (*idle, "interruptions", "prefix hits")} - set(used)
    given = {}
    for key, distribution in plan.options.uncertain.items():
        plain = key.replace(" ", "_")
        if plain in names:
            given[names[plain]] = distribution
        elif plain not in silent:  # an input that this plan does not use changes nothing
            raise unknown_name("uncertain input", key, [*names, *silent])
    return given


def _price_range(plan: PlanResult, name: str) -> Distribution:
    kind = next(h for h in plan.problem.hardware if h.name == name)
    terms = spend_by_offer(plan.problem.fleet, plan.solution).get(name, {})
    given = plan.options.prices.get(name, {})
    used = {t: _price_error(plan, kind, t) for t in terms if t not in given}
    spends = [terms[t] for t in used]
    return lognormal(float(np.average(list(used.values()), weights=spends)) if used else 0.0)


def _price_error(plan: PlanResult, kind: Hardware, term: str) -> float:
    """Return the spread of a term's quotes; that of on-demand quotes where there is one only."""
    price = plan.options.rent(kind, term)
    if price is None or (len(price.quotes) < 2 and term != "on_demand"):
        price = plan.options.rent(kind, "on_demand") or price
    return 0.0 if price is None else float(np.mean(price.log_error))
