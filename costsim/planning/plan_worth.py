"""What limits are worth, who lost and why, and who the bill is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from costsim.economics.allocation import PARTS, Usage, allocate
from costsim.errors import InputError
from costsim.planning.milp import Fleet, Relaxation, Solution, relaxation, solve
from costsim.planning.plan_fleet import Problem, chip_hours, make_problem
from costsim.planning.plan_options import PlanOptions

if TYPE_CHECKING:
    from costsim.models.architecture import Model


@dataclass(frozen=True)
class RunnerUp:
    """A fleet of one hardware alone, and why it lost.

    Args:
        hardware: name. name: of its pool.
        usd_per_month: of that fleet; NaN where there is none.
        why: in words.
    """

    hardware: str
    name: str
    usd_per_month: float
    why: str


@dataclass(frozen=True)
class Worth:
    """What a little more of a limit saves in a month [$]; NaN where it was not worked out.

    Args:
        chip_usd: one more chip of each hardware, at the margin of the relaxation.
        ttft_10ms_usd, tpot_1ms_usd: targets looser by so much (the programme solved again).
        price_1_percent_usd: prices of each hardware lower by 1 % (its share of the bill).
        power_usd_per_kw: one more kW.
        relaxation: the linear relaxation.
    """

    chip_usd: dict[str, float]
    ttft_10ms_usd: float
    tpot_1ms_usd: float
    price_1_percent_usd: dict[str, float]
    power_usd_per_kw: float
    relaxation: Relaxation


def spend_by_offer(fleet: Fleet, found: Solution) -> dict[str, dict[str, float]]:
    """Return $ a period by hardware and term; they add up to the bill but for cold starts."""
    weights = np.asarray(fleet.weights, float)
    spend: dict[str, dict[str, float]] = {}
    for g, offer in enumerate(fleet.offers):
        terms = {
            t: offer.committed_usd[t] * n * float(weights.sum())
            for (of, t), n in found.committed.items() if of == g
        }  # fmt: skip
        if np.isfinite(offer.on_demand_usd) and found.on_demand[g].sum() > 1e-9:
            terms["on_demand"] = float(found.on_demand[g] @ weights) * offer.on_demand_usd
        mine = [c for c, p in enumerate(fleet.pools) if p.offer == g]
        chips = sum((found.spot[c] * fleet.pools[c].chips for c in mine), np.zeros(len(weights)))
        if np.sum(chips) > 0:
            terms["spot"] = float(chips @ weights) * offer.spot_usd
        if terms:
            spend[offer.name] = terms
    return spend


def worth_of(
    problem: Problem, models: dict[str, Model], found: Solution, options: PlanOptions
) -> Worth:
    """Return what limits and targets are worth at the plan found."""
    lp = relaxation(problem.everything)
    spend = spend_by_offer(problem.fleet, found)
    return Worth(
        lp.chip_usd, _looser(problem, models, options, "ttft", 0.010),
        _looser(problem, models, options, "tpot", 0.001),
        {name: 0.01 * sum(terms.values()) for name, terms in spend.items()},
        lp.power_usd_per_kw, lp,
    )  # fmt: skip


def _looser(
    problem: Problem, models: dict[str, Model], options: PlanOptions, name: str, by: float
) -> float:
    """Return what the relaxation saves where a target is looser by some seconds.

    Capacities that a repair took away are left out on both sides, so that the two compare.
    """
    if not any(np.isfinite(getattr(d.target, f"{name}{k}_s")) for d in problem.demands
               for k in ("", "_p99")):  # fmt: skip
        return 0.0
    costs = []
    for seconds in (0.0, by):
        demands = [
            replace(d, target=replace(d.target, **{
                n: getattr(d.target, n) + seconds for n in (f"{name}_s", f"{name}_p99_s")
            })) for d in problem.demands
        ]  # fmt: skip
        problems = make_problem(demands, models, problem.hardware, options)
        costs.append(relaxation(problems.everything).usd)
    return max(0.0, costs[0] - costs[1])  # a looser target allows every plan of a stricter one


def runners_up(problem: Problem, found: Solution, options: PlanOptions) -> list[RunnerUp]:
    """Return the best fleet of each hardware alone, cheapest first, and why it lost."""
    rows = []
    fleet = problem.everything
    used = {fleet.offers[p.offer].name for c, p in enumerate(problem.fleet.pools)
            if found.replicas[c].any() or found.spot[c].any()}  # fmt: skip
    for g, offer in enumerate(fleet.offers):
        mine = [p for p in fleet.pools if p.offer == g]
        reasons = [why for name, why in problem.lost.items() if name.endswith(f" on {offer.name}")]
        if not mine:
            rows.append(RunnerUp(offer.name, "", np.nan, "; ".join(reasons) or "serves nothing"))
        elif used != {offer.name}:
            rows.append(_alone(fleet, g, found, options))
    return sorted(rows, key=lambda r: (np.isnan(r.usd_per_month), r.usd_per_month))


def _alone(fleet: Fleet, g: int, found: Solution, options: PlanOptions) -> RunnerUp:
    offer = fleet.offers[g]
    pools = [p for p in fleet.pools if p.offer == g]
    able = [[p for p in pools if p.capacity[w] > 0] for w in range(fleet.demand.shape[0])]
    chosen = [min(some, key=lambda p: chip_hours(fleet, p)) for some in able if some]
    best = chosen[0]
    alone = replace(fleet, pools=tuple(dict.fromkeys(chosen)), budget_usd=np.inf)
    per_chip = max(best.capacity) / best.chips
    try:
        rival = solve(alone, rel_gap=5e-3, time_limit_s=2.0)
    except InputError as error:
        return RunnerUp(offer.name, best.name, np.nan, str(error).removeprefix("plan: "))
    more = f"{100 * (rival.usd / found.usd - 1):+.0f} %" if found.usd > 0 else "dearer"
    why = (
        f"{more}: {per_chip:.3g} requests/s per chip within the targets at "
        f"${rival.usd / _chip_hours(alone, rival):.2f} per chip-hour in service"
    )
    return RunnerUp(offer.name, best.name, rival.usd, why)


def _chip_hours(fleet: Fleet, found: Solution) -> float:
    chips = np.array([p.chips for p in fleet.pools], float)
    return float(chips @ (found.replicas + found.spot) @ fleet.weights)


def bill(problem: Problem, found: Solution) -> dict[str, Decimal]:
    """Return the month's bill by what it is for (`costsim.economics.allocation.PARTS`).

    Work is what the replicas do at their limit within the targets; the rest of what is paid for
    is idle headroom: the fluctuation of load, whole replicas, spares and zones.
    """
    fleet = problem.fleet
    total = {name: Decimal(0) for name in PARTS}
    spend = spend_by_offer(fleet, found)
    for g, offer in enumerate(fleet.offers):
        terms = spend.get(offer.name)
        if terms:
            for name, usd in allocate(sum(terms.values()), _usage(problem, found, g)).items():
                total[name] += usd
    starts = found.usd - sum(sum(t.values()) for t in spend.values())
    total["cold_starts"] += Decimal(f"{max(starts, 0.0):.2f}")
    rest = Decimal(f"{found.usd:.2f}") - sum(total.values(), Decimal(0))
    total["idle"] += rest  # cents that the sums of several hardware lose to rounding
    return total


def _usage(problem: Problem, found: Solution, g: int) -> Usage:
    fleet = problem.fleet
    seconds = np.asarray(fleet.weights, float) * 3600.0
    mine = [c for c, p in enumerate(fleet.pools) if p.offer == g]
    owned = sum(n for (of, _), n in found.committed.items() if of == g)
    paid = float(owned * seconds.sum() + found.on_demand[g] @ seconds)
    busy = prompts = cached = lost = 0.0
    for c in mine:
        pool, candidate = fleet.pools[c], problem.candidate(c)
        spot = float(found.spot[c] @ seconds) * pool.chips
        paid, lost = paid + spot, lost + spot * (1.0 - fleet.availability(pool))
        served = [found.served[w, c] / r for w, r in enumerate(pool.capacity) if r > 0]
        # At the limit of the targets all in flight are served; the mean in flight is below it.
        share = candidate.batch / candidate.batch_limit
        used = float(np.sum(served, axis=0) @ seconds) * pool.chips * min(1.0, share)
        busy, prompts = busy + used, prompts + used * candidate.input_time_share
        cached += used * candidate.input_time_share * candidate.cached_share
    busy = min(busy, paid - lost)
    return Usage(paid, busy + lost, prompts / max(busy, prompts, 1e-300),
                 cached / max(prompts, 1e-300), lost)  # fmt: skip


def demand_shares(problem: Problem, found: Solution) -> dict[str, float]:
    """Return the share of the capacity in use that each demand takes."""
    fleet = problem.fleet
    used: Sequence[float] = [
        sum(float(found.served[w, c] @ fleet.weights) / p.capacity[w] * p.chips
            for c, p in enumerate(fleet.pools) if p.capacity[w] > 0)
        for w in range(len(problem.demands))
    ]  # fmt: skip
    total = sum(used) or 1.0
    return {d.name: u / total for d, u in zip(problem.demands, used, strict=True)}
