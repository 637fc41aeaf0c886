"""Terms, limits and redundancy of a plan, and the offers that prices make of hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from costsim.economics.energy import Region, load_region, power_w
from costsim.economics.ownership import OwnershipTerms, load_terms, ownership
from costsim.economics.prices import Rent, providers_of, rent, terms_of
from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.planning.distributions import Distribution
from costsim.planning.milp import Offer

_POWER = ("usd_per_kwh", "kg_co2_per_kwh", "pue")
PLAN_TERMS = ("on_demand", "spot", "reserved_1y", "reserved_3y", "owned")


@dataclass(frozen=True)
class PlanOptions:
    """How a plan may buy and what it must survive.

    Args:
        terms: of `PLAN_TERMS`, that may be used.
        limits: chips of each hardware that can be had; absent: any number.
        spare: replicas of each pool that may fail at once (N+1: 1).
        zones: over which each pool is spread so that one may be lost.
        max_spot_share: of the replicas of a pool.
        interruptions_per_hour: of one spot replica.
        replace_s: until an interrupted spot replica serves again.
        cold_start_s: from paying for a replica until it serves.
        power_cap_w: IT power at full load over the fleet.
        budget_usd_per_month: at most.
        max_accelerators: of one replica.
        engine: preset name.
        prices: $/h by hardware and term, in place of the tables'.
        providers: by hardware, provider and region (either may be ``""``) whose quotes count.
        electricity: region of the table ``electricity``, for owned hardware, energy and carbon.
        power: ``usd_per_kwh``, ``kg_co2_per_kwh``, ``pue`` in place of the region's.
        ownership: fields of `OwnershipTerms` that differ from the table's.
        confidence: with which targets must hold in the simulator.
        attempts: rounds of simulating and repairing.
        replications: seeds of each simulated hour.
        requests: of each simulated hour.
        check: whether the plan is simulated.
        compare: whether runners-up and the worth of limits are worked out.
        disaggregated: whether prompts and answers may have replicas of their own.
        rel_gap: at which the solver stops.
        time_limit_s: of the solver.
        seed: of the simulation.
        uncertain: distributions by input, in place of the usual ones of a study; names as in
            `costsim.planning.uncertainty_plan.plan_inputs`, blanks may be underscores.
    """

    terms: tuple[str, ...] = ("on_demand", "reserved_1y", "reserved_3y")
    limits: Mapping[str, float] = field(default_factory=dict)
    spare: int = 0
    zones: int = 1
    max_spot_share: float = 0.5
    interruptions_per_hour: float = 0.05
    replace_s: float = 600.0
    cold_start_s: float = 0.0
    power_cap_w: float = np.inf
    budget_usd_per_month: float = np.inf
    max_accelerators: int = 16
    engine: str = "vllm"
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    providers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    electricity: str = "us"
    power: Mapping[str, float] = field(default_factory=dict)
    ownership: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.95
    attempts: int = 10
    replications: int = 3
    requests: int = 3000
    check: bool = True
    compare: bool = True
    disaggregated: bool = True
    rel_gap: float = 2e-3
    time_limit_s: float = 10.0
    seed: int = 0
    uncertain: Mapping[str, Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no plan can mean."""
        for term in self.terms:
            if term not in PLAN_TERMS:
                raise unknown_name("term", term, PLAN_TERMS)
        for name, limit in self.limits.items():
            if not limit >= 0:
                raise InputError(f"plan: limit of {name} = {limit}: must not be negative")
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"plan: confidence = {self.confidence}: must be within 0.5 to 1")
        known = [f.name for f in fields(OwnershipTerms)]
        for key in self.ownership:
            if key not in known:
                raise unknown_name("ownership assumption", key, known)
        for key, value in self.power.items():
            if key not in _POWER or not value > 0:
                raise InputError(f"plan: electricity {key} = {value}: must be above zero, and "
                                 f"the key one of {', '.join(_POWER)}")  # fmt: skip
        load_region(self.electricity)
        if self.replications < 2 or self.requests < 100:
            raise InputError("plan: replications >= 2 and requests >= 100 are needed")

    def place(self) -> Region:
        """Return the electricity that is planned with."""
        changes: dict[str, Any] = dict(self.power)
        return replace(load_region(self.electricity), **changes)

    def rent(self, kind: Hardware, term: str) -> Rent | None:
        """Return the rent of a hardware from the providers that count; None: no quote."""
        provider, region = self.providers.get(kind.name, ("", ""))
        if term not in terms_of(kind, provider, region):
            return None
        return rent(kind, term, provider=provider, region=region)


def make_offers(
    hardware: Sequence[Hardware], options: PlanOptions, activity: Mapping[str, float] | None = None
) -> tuple[Offer, ...]:
    """Return what each hardware costs under the terms allowed.

    Args:
        hardware: kinds of chips. options: terms, prices, limits.
        activity: share of the dynamic power that each draws at work, for owned ones.

    Raises:
        InputError: a hardware has no price for any of the terms.
    """
    return tuple(_offer(kind, options, (activity or {}).get(kind.name, 0.7)) for kind in hardware)


def _offer(kind: Hardware, options: PlanOptions, activity: float) -> Offer:
    given = options.prices.get(kind.name, {})
    usd = {t: float(given[t]) if t in given else _price(kind, t, options, activity)
           for t in options.terms}  # fmt: skip
    usd = {t: p for t, p in usd.items() if np.isfinite(p)}
    if not usd:
        provider, region = options.providers.get(kind.name, ("", ""))
        found = ", ".join(terms_of(kind, provider, region)) or "none"
        of = "".join(f" {name}" for name in (provider, region) if name)
        raise InputError(
            f"plan: hardware '{kind.name}' has no price for {' or '.join(options.terms)}"
            f"{f' of{of}' if of else ''}; it has prices for: {found}"
            + (f"; providers: {', '.join(providers_of(kind))}" if provider else "")
        )
    committed = {t: p for t, p in usd.items() if t not in ("on_demand", "spot")}
    return Offer(
        kind.name, usd.get("on_demand", np.inf), usd.get("spot", np.inf), committed,
        limit=float(options.limits.get(kind.name, np.inf)), watts=float(power_w(kind, 1.0)),
        interruptions_per_hour=options.interruptions_per_hour,
    )  # fmt: skip


def _price(kind: Hardware, term: str, options: PlanOptions, activity: float) -> float:
    if term == "owned" and float(np.max(kind.list_price_usd)) > 0:
        terms = load_terms().with_fields(**options.ownership)
        cost = ownership(kind, terms, options.place(), activity)
        return float(cost.usd_per_hour)
    found = options.rent(kind, term)
    return np.inf if found is None else float(found.central)
