"""Tables of prices for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from costsim.economics.api import ApiPrice
from costsim.economics.prices import STALE_DAYS, TIERS
from costsim.reports.tables import plain_table


def _age(days: int) -> str:
    return f"{days} d" + (" STALE" if days > STALE_DAYS else "")


def _rent_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [r["hardware"], r["term"], f"${r['low_usd_per_hour']:.2f}",
         f"${r['central_usd_per_hour']:.2f}", f"${r['high_usd_per_hour']:.2f}",
         *(_dollars(r[key]) for key in _tier_keys(rows)), str(r["quotes"]), _age(r["age_days"])]
        for r in rows
    ]  # fmt: skip


def _tier_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = [f"{tier}_usd_per_hour" for tier in TIERS]
    return [key for key in keys if rows and key in rows[0]]


def _dollars(usd: float | None) -> str:
    return "–" if usd is None else f"${usd:.2f}"


def price_list_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rents by hardware and term."""
    tiers = [key.removesuffix("_usd_per_hour") for key in _tier_keys(rows)]
    columns = ("hardware", "term", "least", "central", "most", *tiers, "quotes", "newest is")
    return plain_table("Rents, $ per accelerator and hour", columns, _rent_rows(rows), left=2)


def price_sheet_tables(sheets: Sequence[Mapping[str, Any]]) -> Group:
    """Return every quote, purchase and ownership of some hardware."""
    parts: list[Any] = []
    for sheet in sheets:
        name = sheet["hardware"]
        rows = [[q["term"], f"${q['usd_per_hour']:.2f}", _age(q["age_days"]), q["provider"] or "–",
                 q["region"] or "–", q["source"]] for q in sheet["quotes"]]
        parts.append(plain_table(f"{name}: quotes, $ per hour",
                                 ("term", "price", "age", "provider", "region", "source"), rows,
                                 left=6))  # fmt: skip
        parts.append(price_list_table(sheet["rents"]))
        if sheet["purchases"]:
            rows = [[p["what"], f"${p['usd']:,.0f}", p["day"], p["source"]]
                    for p in sheet["purchases"]]  # fmt: skip
            parts.append(plain_table(f"{name}: asked for one accelerator",
                                     ("with", "price", "date", "source"), rows, left=4))
        parts.append(_owned(name, sheet["ownership"]))
    return Group(*parts)


def _owned(name: str, owned: Mapping[str, Any] | None) -> Any:
    if owned is None:
        return f"{name} is not sold"
    rows = [[part, f"${usd:.3f}"] for part, usd in owned["parts_usd_per_hour"].items()]
    rows += [["together", f"${owned['usd_per_hour']:.3f}"],
             ["capital", f"${owned['capital_usd']:,.0f}"],
             ["carbon", f"{owned['kg_co2_per_hour']:.3f} kg/h"]]  # fmt: skip
    title = (f"{name}: owned at ${owned['list_price_usd']:,.0f} + server "
             f"${owned['server_usd']:,.0f}, {owned['electricity']} at "
             f"${owned['usd_per_kwh']:.3f}/kWh, PUE {owned['pue']:g}, "
             f"{100 * owned['activity']:.0f} % active; per hour")  # fmt: skip
    return plain_table(title, ("part", "$ per hour"), rows)


def api_table(prices: Sequence[ApiPrice]) -> Table:
    """Return prices of hosted models by day."""
    rows = [[p.day.isoformat(), p.provider, p.api, f"${p.input:g}", f"${p.cached_input:g}",
             f"${p.output:g}", "STALE" if p.stale() else "", p.source] for p in prices]
    columns = ("from", "provider", "API", "input", "cached", "output", "", "source")
    return plain_table("Hosted models, $ per 1M tokens", columns, rows, left=3)
