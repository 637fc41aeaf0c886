"""What hardware costs, as plain data: rents by term, every quote, purchase and ownership."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from costsim.economics.energy import carbon_kg_per_hour, load_region
from costsim.economics.ownership import ownership
from costsim.economics.prices import (
    TERMS,
    TIERS,
    matches,
    parse_date,
    quotes_of,
    rent,
    terms_of,
    tier_of,
)
from costsim.economics.purchases import purchases
from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware


def price_list(
    hardware: Sequence[Hardware], term: str | None = None, provider: str = "", region: str = ""
) -> list[dict[str, Any]]:
    """Return rents by hardware and term: least, central and greatest, with their age.

    Args:
        hardware: kinds. term: only this. provider, region: as in `rent`.
    """
    rows = []
    for kind in hardware:
        for name in _terms(kind, term, provider, region):
            price = rent(kind, name, provider=provider, region=region)
            rows.append({
                "hardware": kind.name, "term": name, "low_usd_per_hour": price.low,
                "central_usd_per_hour": price.central, "high_usd_per_hour": price.high,
                "quotes": len(price.quotes), "newest": price.newest, "age_days": price.age_days,
                "stale": price.stale, "note": price.note,
            } | {f"{tier}_usd_per_hour": _central(kind, name, tier, region)
                 for tier in TIERS if provider == ""})  # fmt: skip
    if not rows:
        asked = " ".join(x for x in (term, provider, region) if x)
        raise InputError(f"prices: no quote of {asked or 'any hardware'}")
    return rows


def price_sheet(
    hardware: Hardware, term: str | None = None, provider: str = "", region: str = "",
    electricity: str = "us", activity: float = 0.7, today: date | None = None,
) -> dict[str, Any]:
    """Return everything that is known of one hardware's price.

    Args:
        hardware: whose. term, provider, region: of the quotes.
        electricity, activity: of an owned one. today: that ages count from.
    """
    today = today or date.today()
    terms = _terms(hardware, term, provider, region)
    quotes = [q for q in quotes_of(hardware) if q.kind in terms and matches(q, provider, region)]
    if not quotes and (term or provider or region):
        rent(hardware, term or "on_demand", provider=provider, region=region)  # says what there is
    rows = [
        {"term": q.kind, "usd_per_hour": float(q.usd_per_hour), "provider": q.provider,
         "tier": tier_of(q.provider) if q.provider else "", "region": q.region, "date": q.date,
         "age_days": (today - parse_date(q.date, "")).days,
         "provenance": q.provenance, "source": q.source}
        for q in sorted(quotes, key=lambda q: (TERMS.index(q.kind), float(q.usd_per_hour)))
    ]  # fmt: skip
    return {
        "hardware": hardware.name, "rents": price_list([hardware], term, provider, region)
        if rows else [], "quotes": rows,
        "purchases": [vars(p) | {"day": p.day.isoformat()} for p in purchases(hardware.name)],
        "ownership": _owned(hardware, electricity, activity),
    }  # fmt: skip


def _central(hardware: Hardware, term: str, tier: str, region: str) -> float | None:
    """Return the central rent at one kind of provider; None where there is no such quote."""
    if term not in terms_of(hardware, tier, region):
        return None
    return float(rent(hardware, term, provider=tier, region=region).central)


def _owned(hardware: Hardware, electricity: str, activity: float) -> dict[str, Any] | None:
    place = load_region(electricity)
    if not float(hardware.list_price_usd) > 0:
        return None
    cost = ownership(hardware, region=place, activity=activity)
    return {
        "usd_per_hour": float(cost.usd_per_hour),
        "parts_usd_per_hour": {k: float(v) for k, v in cost.breakdown.items()},
        "capital_usd": float(cost.capital_usd), "list_price_usd": float(hardware.list_price_usd),
        "server_usd": float(hardware.server_price_usd_per_accelerator), "electricity": place.name,
        "usd_per_kwh": float(place.usd_per_kwh), "pue": float(place.pue), "activity": activity,
        "kg_co2_per_hour": float(carbon_kg_per_hour(hardware, place, activity)),
    }  # fmt: skip


def _terms(hardware: Hardware, term: str | None, provider: str, region: str) -> list[str]:
    if term is not None and term not in TERMS:
        raise unknown_name("price term", term, TERMS)
    return [t for t in terms_of(hardware, provider, region) if term in (None, t)]
