"""From demands and hardware to the programme of a fleet, and to its cheapest solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from costsim.engine.presets import load_settings
from costsim.engine.steady_state import operating_point
from costsim.errors import DoesNotFitError
from costsim.hardware.accelerator import Hardware
from costsim.models.architecture import Model
from costsim.planning.milp import Fleet, Offer, Pool, Solution, relaxation, solve
from costsim.planning.plan_disaggregated import disaggregated_points
from costsim.planning.plan_options import PlanOptions, make_offers
from costsim.planning.plan_points import BATCHES, Candidate, Points, efficient_points, mean_batch
from costsim.planning.targets import Target
from costsim.planning.workload import Demand, hours_of

_KEEP_POOLS = 4


@dataclass(frozen=True)
class Problem:
    """A fleet to plan, with what its pools stand for.

    Args:
        demands: to carry. models: by name.
        hardware: candidates, in the order of the offers.
        candidates: one for each pool of ``everything``.
        everything: the programme with every pool that is not dominated.
        chosen: indices of the pools that the solver is given.
        owners: index of the demand that each candidate is made for.
        considered: operating points priced.
        lost: hardware that serves a demand within no layout, and why.
        measured: candidates whose capacity was found by simulation.
        priors: by demand, share of the first estimate that those not measured are held to carry.
    """

    demands: tuple[Demand, ...]
    hardware: tuple[Hardware, ...]
    candidates: tuple[Candidate, ...]
    everything: Fleet
    chosen: tuple[int, ...]
    owners: tuple[int, ...]
    considered: int
    lost: dict[str, str]
    measured: frozenset[int] = frozenset()
    priors: Mapping[int, float] = field(default_factory=dict)

    @property
    def fleet(self) -> Fleet:
        """The programme with the pools chosen."""
        return replace(self.everything, pools=tuple(self.everything.pools[i] for i in self.chosen))

    def candidate(self, pool: int) -> Candidate:
        """Return what a pool of ``fleet`` stands for."""
        return self.candidates[self.chosen[pool]]

    def made_for(self, pool: int) -> int:
        """Return the index of the demand whose targets a pool of ``fleet`` keeps."""
        return self.owners[self.chosen[pool]]


def make_problem(
    demands: Sequence[Demand], models: dict[str, Model], hardware: Sequence[Hardware],
    options: PlanOptions,
) -> Problem:
    """Return the programme of a fleet: efficient points, offers, demand by hour, limits."""
    make_offers(hardware, options)  # a missing price is said before the search
    candidates: list[Candidate] = []
    pools: list[Pool] = []
    owners: list[int] = []
    considered, lost = 0, {}
    names = [h.name for h in hardware]
    for w, demand in enumerate(demands):
        points = _points(models[demand.model], hardware, demand, options)
        considered += points.considered
        lost.update({f"{demand.name} on {k}": v for k, v in points.lost.items()})
        for candidate in points.candidates:
            offer = names.index(candidate.deployment.hardware.name)
            capacity = _capacities(candidate, w, demands)
            pools.append(Pool(candidate.name, offer, candidate.chips, capacity))
            candidates.append(candidate)
            owners.append(w)
    rates, weights = hours_of(demands)
    activity = {n: float(np.mean([c.activity for c in candidates
                                  if c.deployment.hardware.name == n] or [0.7])) for n in names}
    offers = make_offers(hardware, options, activity)
    everything = Fleet(
        offers, tuple(pools), rates, weights, options.spare, options.zones,
        options.max_spot_share if "spot" in options.terms else 0.0, options.replace_s / 3600.0,
        options.cold_start_s / 3600.0, options.power_cap_w, options.budget_usd_per_month,
    )  # fmt: skip
    chosen = tuple(select_pools(everything))
    return Problem(tuple(demands), tuple(hardware), tuple(candidates), everything, chosen,
                   tuple(owners), considered, lost)  # fmt: skip


def _points(
    model: Model, hardware: Sequence[Hardware], demand: Demand, options: PlanOptions
) -> Points:
    settings = replace(load_settings(options.engine), prefix_hit_share=demand.prefix_hit_share)
    found = efficient_points(
        model, hardware, demand.isl, demand.osl, demand.target,
        max_accelerators=options.max_accelerators, settings=settings,
    )  # fmt: skip
    if not options.disaggregated:
        return found
    apart, extra = disaggregated_points(found.candidates, demand.isl, demand.osl, demand.target)
    return Points((*found.candidates, *apart), found.considered + extra, found.lost)


def _capacities(candidate: Candidate, own: int, demands: Sequence[Demand]) -> tuple[float, ...]:
    """Return what a replica made for one demand carries of each: its own, and milder ones."""
    mine = demands[own]
    found = []
    for w, other in enumerate(demands):
        same = other.model == mine.model and _milder(other.target, mine.target)
        if w == own:
            found.append(candidate.requests_per_s)
        elif same and candidate.role == "both":
            found.append(_capacity(candidate, other, mine.target))
        else:
            found.append(0.0)
    return tuple(found)


def _milder(other: Target, mine: Target) -> bool:
    names = ("ttft_s", "tpot_s", "e2e_s", "ttft_p99_s", "tpot_p99_s")
    return all(getattr(other, n) >= getattr(mine, n) for n in names)


def _capacity(candidate: Candidate, other: Demand, target: Target) -> float:
    plain = candidate.deployment
    settings = replace(plain.settings, prefix_hit_share=other.prefix_hit_share)
    point = operating_point(plain.with_changes(settings=settings), batch=BATCHES, isl=other.isl,
                            osl=other.osl, detailed=False)  # fmt: skip
    good = np.flatnonzero(np.asarray(point.fits) & np.asarray(target.met(point)))
    if not len(good):
        return 0.0
    limit = float(BATCHES[good[-1]])
    tails = np.isfinite([target.ttft_p99_s, target.tpot_p99_s]).any()
    mean = float(mean_batch(limit)) if tails else limit
    return float(np.interp(mean, BATCHES, np.asarray(point.requests_per_s)))


def select_pools(fleet: Fleet, keep: int = _KEEP_POOLS) -> list[int]:
    """Return the pools worth giving to the solver.

    On each hardware a demand gets one layout, the one that carries it alone with fewest
    chip-hours, because machines are not laid out anew every hour. A pool is left out where
    another costs no more under every term, carries no less, and its chips have no limit; of the
    rest those with the lowest cost per request stay, with all hardware before the first without
    a limit. The bound that is printed is of the programme with all pools.
    """
    cost = np.array([_costs(fleet.offers[p.offer], p.chips) for p in fleet.pools])
    carry = np.array([p.capacity for p in fleet.pools])
    free = np.array([not np.isfinite(fleet.offers[p.offer].limit) for p in fleet.pools])
    least = min((p.headroom for p in fleet.pools), default=0.0)
    free &= np.array([p.headroom <= least for p in fleet.pools])
    kept = _one_layout(fleet)
    kept = [i for i in kept if not _beaten(i, kept, cost, carry, free)]
    chosen: set[int] = set()
    for w in range(carry.shape[1]):
        mine = [i for i in kept if carry[i, w] > 0]
        mine.sort(key=lambda i: _alone_usd(fleet, i, cost))
        chosen.update(mine[:keep])
        chosen.update(_until_unlimited(fleet, mine))
    return sorted(chosen)


def chip_hours(fleet: Fleet, pool: Pool) -> float:
    """Return the chip-hours of a period in which a pool alone carries all it can serve."""
    need = sum((fleet.demand[w] / r for w, r in enumerate(pool.capacity) if r > 0),
               np.zeros(fleet.demand.shape[1]))  # fmt: skip
    need = np.where(need > 0, need + pool.headroom, 0.0)
    return float(np.ceil(need - 1e-9) @ fleet.weights) * pool.chips


def _one_layout(fleet: Fleet) -> list[int]:
    """Return for each hardware and set of demands served the pool with fewest chip-hours."""
    rivals: dict[tuple[int, tuple[bool, ...]], list[int]] = {}
    for i, pool in enumerate(fleet.pools):
        served = tuple(r > 0 for r in pool.capacity)
        rivals.setdefault((pool.offer, served), []).append(i)
    hours = [chip_hours(fleet, p) for p in fleet.pools]
    return sorted(min(some, key=lambda i: hours[i]) for some in rivals.values())


def _alone_usd(fleet: Fleet, i: int, cost: np.ndarray) -> float:
    return float(np.min(cost[i])) / fleet.pools[i].chips * chip_hours(fleet, fleet.pools[i])


def _costs(offer: Offer, chips: int) -> tuple[float, float, float]:
    committed = min(offer.committed_usd.values(), default=np.inf)
    return chips * offer.on_demand_usd, chips * offer.spot_usd, chips * committed


def _beaten(
    i: int, among: list[int], cost: np.ndarray, carry: np.ndarray, free: np.ndarray
) -> bool:
    for j in among:
        no_dearer = bool(np.all(cost[j] <= cost[i]) and np.all(carry[j] >= carry[i]))
        same = bool(np.all(cost[j] == cost[i]) and np.all(carry[j] == carry[i]))
        if j != i and free[j] and no_dearer and (not same or j < i):
            return True
    return False


def _until_unlimited(fleet: Fleet, ranked: list[int]) -> list[int]:
    """Return the best pool of each hardware, in order, up to one without a limit."""
    seen: dict[int, int] = {}
    for i in ranked:
        offer = fleet.pools[i].offer
        if offer not in seen:
            seen[offer] = i
            if not np.isfinite(fleet.offers[offer].limit):
                break
    return list(seen.values())


def solve_problem(problem: Problem, options: PlanOptions) -> Solution:
    """Return the cheapest fleet of a problem; its bounds hold for all pools, not the chosen alone.

    Raises:
        InputError: no fleet carries the load within the limits.
        DoesNotFitError: nothing serves a demand.
    """
    for w, demand in enumerate(problem.demands):
        if not any(p.capacity[w] > 0 for p in problem.everything.pools):
            raise DoesNotFitError(f"plan: nothing serves '{demand.name}' within its targets")
    found = solve(problem.fleet, rel_gap=options.rel_gap, time_limit_s=options.time_limit_s)
    lower = min(relaxation(problem.everything).usd, found.usd)
    return replace(found, lp_bound_usd=lower)
