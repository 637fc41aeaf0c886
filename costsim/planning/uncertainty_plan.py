"""A plan as a function of uncertain inputs, all draws at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.planning.distributions import Distribution, lognormal
from costsim.planning.plan_points import Candidate
from costsim.planning.plan_worth import spend_by_offer

if TYPE_CHECKING:
    from costsim.planning.plan_result import PlanResult

GROWTH = Distribution("lognormal", 0.8, 1.25)
LENGTHS = Distribution("lognormal", 0.9, 1.0 / 0.9)
_STEP = 1.1


@dataclass(frozen=True)
class Outcome:
    """What each draw comes to.

    Args:
        holds: whether the fleet as planned carries every hour.
        usd: bill of the fleet that follows the load with on-demand chips.
        usd_per_query: that bill over the requests of the draw.
        peak_chips: that the busiest hour needs.
        need: load over the capacity that stands, in the tightest hour.
    """

    holds: np.ndarray
    usd: np.ndarray
    usd_per_query: np.ndarray
    peak_chips: np.ndarray
    need: np.ndarray


@dataclass(frozen=True)
class PlanModel:
    """A plan, reduced to arrays; hours are columns.

    Args:
        inputs: uncertain inputs by name.
        work: replicas' worth of load of each pool in each hour, as planned.
        standing: replicas after the failures to survive; spare: those that may fail.
        chips: of a replica; hardware: name of each pool's.
        committed: chips of each hardware, and prices: $/h by hardware of a chip on top.
        committed_usd: $ a period by hardware.
        length_powers: exponents of capacity on prompt and answer length, by pool.
        weights: of the hours; queries: of the period.
    """

    inputs: dict[str, Distribution]
    work: np.ndarray
    standing: np.ndarray
    spare: np.ndarray
    chips: np.ndarray
    hardware: tuple[str, ...]
    committed: dict[str, int]
    prices: dict[str, float]
    committed_usd: dict[str, float]
    length_powers: np.ndarray
    weights: np.ndarray
    queries: float

    def factors(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return load over planned load, in replicas' worth, by draw and pool."""
        growth = drawn["traffic growth"][:, None]
        prompt, answer = drawn["prompt length"][:, None], drawn["answer length"][:, None]
        lengths = prompt ** -self.length_powers[:, 0] * answer ** -self.length_powers[:, 1]
        slow = np.stack([drawn[f"calibration of {h}"] for h in self.hardware], axis=1)
        return np.asarray(growth * lengths * slow)

    def outcome(self, drawn: Mapping[str, np.ndarray]) -> Outcome:
        """Return what each draw comes to.

        Pools that serve together share what one of them cannot carry: the fleet holds in an hour
        where the load of all its pools, in replicas' worth, is no more than what stands.
        """
        factor = self.factors(drawn)
        load = np.einsum("dc,ch->dch", factor, self.work)
        total = load.sum(axis=1)
        standing = self.standing.sum(axis=0)
        busy = self.work.sum(axis=0) > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            need = np.where(busy, total / np.maximum(standing, 1e-12), 0.0)
        replicas = np.where(self.work > 0, np.ceil(load - 1e-9) + self.spare, 0.0)
        usd, chips = self._bill(replicas, drawn)
        queries = self.queries * drawn["traffic growth"]
        return Outcome(
            np.all(need <= 1.0 + 1e-9, axis=1), usd, usd / queries, chips.max(axis=1),
            need.max(axis=1),
        )  # fmt: skip

    def _bill(
        self, replicas: np.ndarray, drawn: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        usd = np.zeros(len(replicas))
        chips = np.einsum("dch,c->dh", replicas, self.chips)
        for name in dict.fromkeys([*self.hardware, *self.committed_usd]):
            price = drawn[f"price of {name}"]
            mine = np.array([h == name for h in self.hardware])
            need = np.einsum("dch,c->dh", replicas[:, mine], self.chips[mine])
            extra = np.maximum(need - self.committed.get(name, 0), 0.0)
            usd += price * (self.committed_usd.get(name, 0.0)
                            + self.prices[name] * (extra @ self.weights))  # fmt: skip
        return usd, chips


def plan_inputs(plan: PlanResult, everything: bool = False) -> dict[str, Distribution]:
    """Return the uncertain inputs of a plan, factors on what was planned with.

    Traffic growth (90 % within 0.8 to 1.25) and lengths (0.9 to 1.11) are assumptions to be
    replaced by one's own; calibration error is the engine's, prices range as their quotes do.

    Args:
        plan: whose inputs.
        everything: those of all hardware that may be used, not of that in use alone.
    """
    found = {"traffic growth": GROWTH, "prompt length": LENGTHS, "answer length": LENGTHS}
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
    return found | _given(plan, found)


def _given(plan: PlanResult, found: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """Return the plan's own distributions by the names of the inputs they replace."""
    names = {name.replace(" ", "_"): name for name in found}
    kinds = ("price", "calibration")
    every = {f"{k}_of_{h.name}": "" for h in plan.problem.hardware for k in kinds} | names
    given = {}
    for key, distribution in plan.options.uncertain.items():
        plain = key.replace(" ", "_")
        if plain not in every:
            raise unknown_name("uncertain input", key, every)
        if every[plain]:
            given[every[plain]] = distribution
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


def plan_model(plan: PlanResult) -> PlanModel:
    """Return a plan reduced to arrays."""
    fleet, found = plan.problem.fleet, plan.solution
    used = [c for c in range(len(fleet.pools)) if found.replicas[c].any() or found.spot[c].any()]
    if not used:
        raise InputError("uncertainty: the plan has no replicas")
    spare = float(plan.options.spare)
    up = np.stack([found.replicas[c] + found.spot[c] * fleet.availability(fleet.pools[c])
                   for c in used])  # fmt: skip
    # A robust fleet was planned for more load: its work is that of the true demand.
    true = plan.problem.fleet.demand
    planned = found.served.sum(axis=1)
    ratio = np.where(planned > 0, true / np.maximum(planned, 1e-300), 0.0)
    work = np.stack([_work(plan, c, ratio) for c in used])
    names = tuple(fleet.offers[fleet.pools[c].offer].name for c in used)
    terms = spend_by_offer(fleet, found)
    committed: dict[str, int] = {}
    committed_usd: dict[str, float] = {}
    for (g, term), n in found.committed.items():
        name = fleet.offers[g].name
        committed[name] = committed.get(name, 0) + n
        committed_usd[name] = committed_usd.get(name, 0.0) + terms[name][term]
    standing = np.where(work > 0, np.maximum(up - spare, 0.0), 0.0)
    return PlanModel(
        plan_inputs(plan), work, standing, np.full(work.shape, spare),
        np.array([fleet.pools[c].chips for c in used], float), names, committed,
        {name: _extra_price(plan, name) for name in [*names, *committed]}, committed_usd,
        np.array([length_powers(plan, c) for c in used]), np.asarray(fleet.weights, float),
        float((true @ fleet.weights).sum() * 3600.0),
    )  # fmt: skip


def _work(plan: PlanResult, c: int, ratio: np.ndarray) -> np.ndarray:
    pool = plan.problem.fleet.pools[c]
    served = plan.solution.served[:, c] * ratio
    return np.asarray(sum(served[w] / r for w, r in enumerate(pool.capacity) if r > 0))


def _extra_price(plan: PlanResult, name: str) -> float:
    """Return $/h of a chip on top of those committed: on demand, else spot, else committed."""
    offer = next(o for o in plan.problem.fleet.offers if o.name == name)
    for price in (offer.on_demand_usd, offer.spot_usd):
        if np.isfinite(price):
            return price
    return max(offer.committed_usd.values())


def length_powers(plan: PlanResult, c: int) -> tuple[float, float]:
    """Return d log(capacity) / d log(prompt length), and the same of answers, by differences."""
    candidate = plan.problem.candidate(c)
    able = [d for d, r in zip(plan.problem.demands, plan.problem.fleet.pools[c].capacity,
                              strict=True) if r > 0]  # fmt: skip
    isl, osl = able[0].isl, able[0].osl
    base = _rate(candidate, isl, osl)
    prompt = np.log(_rate(candidate, isl * _STEP, osl) / base) / np.log(_STEP)
    answer = np.log(_rate(candidate, isl, osl * _STEP) / base) / np.log(_STEP)
    return float(prompt), float(answer)


def _rate(candidate: Candidate, isl: float, osl: float) -> Any:
    from costsim.engine.steady_state import operating_point

    point = operating_point(candidate.deployment, batch=candidate.batch, isl=isl, osl=osl)
    return float(np.max(point.requests_per_s))
