"""Own, rent or API for a plan's load: the options of `costsim.economics.breakeven`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.economics.api import ApiPrice, api_prices, yearly_decline
from costsim.economics.breakeven import Option, break_even_date, break_even_utilisation
from costsim.economics.energy import energy_usd_per_hour
from costsim.economics.ownership import load_terms, ownership
from costsim.planning.plan_options import PlanOptions
from costsim.planning.plan_worth import spend_by_offer

if TYPE_CHECKING:
    from costsim.hardware.accelerator import Hardware
    from costsim.planning.plan_result import PlanResult
    from costsim.planning.workload import Demand


@dataclass(frozen=True)
class BreakEven:
    """Own against rent and API for a plan's load on its main hardware.

    Args:
        hardware: name. chips: bought or rented to carry the peak.
        options: own first, where the hardware is sold.
        utilisation: mean load over the peak that the chips carry.
        queries_per_hour: at full utilisation.
        utilisations: from which owning is cheaper, by the name of the other; NaN: no crossing.
        dates: on which owning has cost no more, by the name of the other; None: not within the
            life of what is bought.
        life_years: of what is bought.
    """

    hardware: str
    chips: int
    options: tuple[Option, ...]
    utilisation: float
    queries_per_hour: float
    utilisations: dict[str, float]
    dates: dict[str, date | None]
    life_years: float

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "hardware": self.hardware, "chips": self.chips, "utilisation": self.utilisation,
            "life_years": self.life_years,
            "queries_per_hour_at_full_utilisation": self.queries_per_hour,
            "own_is_cheaper_from_utilisation": self.utilisations,
            "own_is_cheaper_from_date": {
                k: None if v is None else v.isoformat() for k, v in self.dates.items()
            },
            "options": [vars(option) for option in self.options],
        }  # fmt: skip


def plan_break_even(plan: PlanResult, start: date | None = None) -> BreakEven:
    """Return own against rent and API for a plan.

    Owning and reserving pay for the chips of the peak at all hours, on-demand chips and API
    tokens are paid as they are used. Prices of rent stay as they are; those of an API fall as
    its provider's have (`yearly_decline`).

    Args:
        plan: whose load. start: of spending; today by default.
    """
    spend = spend_by_offer(plan.problem.fleet, plan.solution)
    name = max(spend, key=lambda k: sum(spend[k].values()))
    kind = next(h for h in plan.problem.hardware if h.name == name)
    chips = int(np.max(sum(plan.chips().values())))
    load = plan.problem.fleet.demand.sum(axis=0)
    use = float(np.average(load, weights=plan.problem.fleet.weights) / load.max())
    full = float(load.max()) * 3600.0
    activity = _activity(plan, name)
    own = _own(kind, chips, plan.options, activity)
    others = [*_rents(kind, chips, plan.options), *_apis(plan, full)]
    life = float(load_terms().with_fields(**plan.options.ownership).life_years)
    first = start or date.today()
    if own is None:
        return BreakEven(name, chips, tuple(others), use, full, {}, {}, life)
    return BreakEven(
        name, chips, (own, *others), use, full,
        {o.name: break_even_utilisation(own, o) for o in others},
        {o.name: break_even_date(own, o, use, first, life) for o in others}, life,
    )  # fmt: skip


def _activity(plan: PlanResult, name: str) -> float:
    """Return the share of the dynamic power that the pools in use of a hardware draw at work."""
    found = [plan.problem.candidate(c).activity for c, pool in enumerate(plan.problem.fleet.pools)
             if plan.problem.fleet.offers[pool.offer].name == name
             and (plan.solution.replicas[c] + plan.solution.spot[c]).any()]  # fmt: skip
    return float(np.mean(found)) if found else 0.7


def _own(kind: Hardware, chips: int, options: PlanOptions, activity: float) -> Option | None:
    if not float(np.max(kind.list_price_usd)) > 0:
        return None
    place, terms = options.place(), load_terms().with_fields(**options.ownership)
    idle = ownership(kind, terms, place, activity=0.0)
    busy, still = (float(energy_usd_per_hour(kind, place, a)) for a in (activity, 0.0))
    running = idle.breakdown["maintenance"] + idle.breakdown["staff"] + still
    return Option(
        f"own {kind.name}", chips * float(idle.capital_usd), chips * float(idle.usd_per_hour),
        chips * (busy - still), chips * float(running),
    )  # fmt: skip


def _rents(kind: Hardware, chips: int, planned: PlanOptions) -> list[Option]:
    options = []
    for term in ("on_demand", "reserved_1y", "reserved_3y"):
        given, quoted = planned.prices.get(kind.name, {}).get(term), planned.rent(kind, term)
        if given is None and quoted is not None:
            given = float(quoted.central)
        if given is None:
            continue
        usd = chips * given
        if term == "on_demand":
            options.append(Option("rent on demand", full_usd_per_hour=usd))
        else:
            options.append(Option(f"rent {term.replace('_', ' ')}", fixed_usd_per_hour=usd))
    return options


def _apis(plan: PlanResult, queries_per_hour: float) -> list[Option]:
    if len(plan.problem.demands) != 1:
        return []
    options = []
    for price, usd in api_rivals(plan.problem.demands[0]):
        history = api_prices(api=price.api, provider=price.provider)
        fall = max(0.0, yearly_decline(history))
        options.append(Option(f"API {price.provider} {price.api}", decline_per_year=fall,
                              full_usd_per_hour=usd * queries_per_hour))  # fmt: skip
    return options


def api_rivals(demand: Demand) -> list[tuple[ApiPrice, float]]:
    """Return the newest price of each API with the demand's weights, and its $ per query."""
    found: dict[tuple[str, str], ApiPrice] = {}
    for price in api_prices():
        if price.model == demand.model:
            found[price.provider, price.api] = price
    hits = demand.prefix_hit_share  # the provider's cache is held to find as much
    return [(p, float(p.usd_per_query(demand.isl, demand.osl, hits))) for p in found.values()]
