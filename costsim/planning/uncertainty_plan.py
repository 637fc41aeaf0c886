"""A plan as a function of uncertain inputs, all draws at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.errors import InputError
from costsim.planning.distributions import Distribution
from costsim.planning.plan_worth import spend_by_offer
from costsim.planning.uncertainty_capacity import KINDS, Response, responses
from costsim.planning.uncertainty_inputs import input_of, plan_inputs

if TYPE_CHECKING:
    from costsim.planning.plan_result import PlanResult

Drawn = Mapping[str, np.ndarray]


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
    """A plan, reduced to arrays; hours are columns, those alike only once.

    Args:
        inputs: uncertain inputs by name.
        demands: names.
        work: replicas' worth of load by demand, pool and hour, as planned.
        replicas, spot: in service by pool and hour. spare: those that may fail.
        headroom: replicas' worth that each pool keeps free.
        interruptions: a spot replica's hours down over those up, by pool.
        chips: of a replica; hardware: name of each pool's.
        committed: chips of each hardware. committed_usd: $ a period by hardware and term.
        extra: term and $/h of a chip on top of those committed, by hardware.
        responses: how a pool's capacity for a demand answers to lengths and cache hits.
        weights: of the hours. queries: of the period by demand.
    """

    inputs: dict[str, Distribution]
    demands: tuple[str, ...]
    work: np.ndarray
    replicas: np.ndarray
    spot: np.ndarray
    spare: float
    headroom: np.ndarray
    interruptions: np.ndarray
    chips: np.ndarray
    hardware: tuple[str, ...]
    committed: dict[str, int]
    committed_usd: dict[tuple[str, str], float]
    extra: dict[str, tuple[str, float]]
    responses: dict[tuple[int, int], dict[str, Response]]
    weights: np.ndarray
    queries: np.ndarray

    def load(self, drawn: Drawn) -> np.ndarray:
        """Return the load in replicas' worth, by draw, pool and hour."""
        total: Any = 0.0
        for w, name in enumerate(self.demands):
            growth = input_of(drawn, "traffic growth", name)
            factors = np.stack([self._factor(drawn, w, c, name) for c in range(len(self.hardware))],
                               axis=1)  # fmt: skip
            total = total + (growth[:, None] * factors)[:, :, None] * self.work[w]
        return np.asarray(total)

    def _factor(self, drawn: Drawn, w: int, c: int, name: str) -> np.ndarray:
        """Return planned over true capacity of a pool for a demand."""
        logs: Any = np.zeros_like(drawn[f"calibration of {self.hardware[c]}"])
        for kind, response in self.responses.get((w, c), {}).items():
            logs = logs + response.at(input_of(drawn, kind, name))
        return np.asarray(drawn[f"calibration of {self.hardware[c]}"] * np.exp(-logs))

    def standing(self, drawn: Drawn) -> np.ndarray:
        """Return replicas that stand after failures, by draw (or 1) and hour, all pools."""
        used = self.work.sum(axis=0) > 0
        down = self.interruptions[None, :]
        if "interruptions" in drawn:
            down = down * drawn["interruptions"][:, None]
        up = self.replicas + self.spot / (1.0 + down[:, :, None])
        free = self.spare + self.headroom[:, None]
        return np.where(used, np.maximum(up - free, 0.0), 0.0).sum(axis=1)

    def outcome(self, drawn: Drawn) -> Outcome:
        """Return what each draw comes to.

        Pools that serve together share what one of them cannot carry: the fleet holds in an hour
        where the load of all its pools, in replicas' worth, is no more than what stands.
        """
        load, standing = self.load(drawn), self.standing(drawn)
        busy = self.work.sum(axis=(0, 1)) > 0
        need = np.where(busy, load.sum(axis=1) / np.maximum(standing, 1e-12), 0.0)
        used = self.work.sum(axis=0) > 0
        replicas = np.where(used, np.ceil(load + self.headroom[:, None] - 1e-9) + self.spare, 0.0)
        usd, chips = self._bill(replicas, drawn)
        growth = np.stack([input_of(drawn, "traffic growth", n) for n in self.demands], axis=1)
        queries = growth @ self.queries
        return Outcome(
            np.all(need <= 1.0 + 1e-9, axis=1), usd, usd / queries, chips.max(axis=1),
            need.max(axis=1),
        )  # fmt: skip

    def _bill(self, replicas: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
        usd = np.zeros(len(replicas))
        chips = np.einsum("dch,c->dh", replicas, self.chips)
        for (name, term), fixed in self.committed_usd.items():
            usd += _price(drawn, name, term) * fixed
        for name, (term, price) in self.extra.items():
            mine = np.array([h == name for h in self.hardware])
            need = np.einsum("dch,c->dh", replicas[:, mine], self.chips[mine])
            extra = np.maximum(need - self.committed.get(name, 0), 0.0)
            usd += _price(drawn, name, term) * price * (extra @ self.weights)
        return usd, chips


def _price(drawn: Drawn, hardware: str, term: str) -> np.ndarray:
    """Return the factor on a price: that of the term where it has one of its own."""
    own = f"{term} price of {hardware}"
    return drawn[own] if own in drawn else drawn[f"price of {hardware}"]


def plan_model(plan: PlanResult) -> PlanModel:
    """Return a plan reduced to arrays."""
    fleet, found = plan.problem.fleet, plan.solution
    used = [c for c in range(len(fleet.pools)) if found.replicas[c].any() or found.spot[c].any()]
    if not used:
        raise InputError("uncertainty: the plan has no replicas")
    inputs = plan_inputs(plan)
    pools = [fleet.pools[c] for c in used]
    work = _work(plan, used)
    replicas, spot = found.replicas[used].astype(float), found.spot[used].astype(float)
    (work, replicas, spot), weights = _hours_once(work, replicas, spot, fleet.weights)
    names = tuple(fleet.offers[p.offer].name for p in pools)
    terms = spend_by_offer(fleet, found)
    committed: dict[str, int] = {}
    for (g, _), n in found.committed.items():
        name = fleet.offers[g].name
        committed[name] = committed.get(name, 0) + n
    paid = {(fleet.offers[g].name, t): terms[fleet.offers[g].name][t] for g, t in found.committed}
    return PlanModel(
        inputs, tuple(d.name for d in plan.problem.demands), work, replicas, spot,
        float(plan.options.spare), np.array([p.headroom for p in pools]),
        np.array([1.0 / fleet.availability(p) - 1.0 for p in pools]),
        np.array([p.chips for p in pools], float), names, committed, paid,
        {name: _extra_price(plan, name) for name in dict.fromkeys([*names, *committed])},
        _responses(plan, used, work, inputs), weights,
        np.asarray(fleet.demand @ fleet.weights * 3600.0),
    )  # fmt: skip


def _work(plan: PlanResult, used: list[int]) -> np.ndarray:
    """Return replicas' worth of the true demand, by demand, pool and hour.

    A robust fleet was planned for more load: its work is that of the true demand.
    """
    true, found = plan.problem.fleet.demand, plan.solution
    planned = found.served.sum(axis=1)
    ratio = np.where(planned > 0, true / np.maximum(planned, 1e-300), 0.0)
    rates = np.array([plan.problem.fleet.pools[c].capacity for c in used]).T[:, :, None]
    served = found.served[:, used] * ratio[:, None, :]
    return np.where(rates > 0, served / np.maximum(rates, 1e-300), 0.0)


def _hours_once(
    work: np.ndarray, replicas: np.ndarray, spot: np.ndarray, weights: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return the arrays with equal hours once, and how often each occurs."""
    hours = work.shape[-1]
    columns = np.concatenate([work.reshape(-1, hours), replicas, spot])
    _, first, group = np.unique(np.round(columns, 9), axis=1, return_index=True,
                                return_inverse=True)  # fmt: skip
    count = np.bincount(np.ravel(group), weights=np.asarray(weights, float))
    return (work[..., first], replicas[:, first], spot[:, first]), count


def _responses(
    plan: PlanResult, used: list[int], work: np.ndarray, inputs: Mapping[str, Distribution]
) -> dict[tuple[int, int], dict[str, Response]]:
    found = {}
    demands = plan.problem.demands
    for at, c in enumerate(used):
        for w, demand in enumerate(demands):
            if not work[w, at].any():
                continue
            mine = {}
            for kind in KINDS:
                chosen = inputs.get(f"{kind} of {demand.name}", inputs.get(kind))
                if chosen is not None and chosen.kind != "fixed":
                    mine[kind] = chosen
            made_for = demands[plan.problem.made_for(c)].target
            found[w, at] = responses(plan.problem.candidate(c), demand, made_for, mine)
    return found


def _extra_price(plan: PlanResult, name: str) -> tuple[str, float]:
    """Return term and $/h of a chip on top of those committed: on demand, else spot, else dear."""
    offer = next(o for o in plan.problem.fleet.offers if o.name == name)
    for term, price in (("on_demand", offer.on_demand_usd), ("spot", offer.spot_usd)):
        if np.isfinite(price):
            return term, price
    return max(offer.committed_usd.items(), key=lambda item: item[1])
