"""Prices of hosted models over time, to compare one's own serving with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from costsim.economics.prices import STALE_DAYS, parse_date
from costsim.economics.tables import number, read_table, table_path
from costsim.errors import InputError, unknown_name


@dataclass(frozen=True)
class ApiPrice:
    """Price of a hosted model from a day on.

    Args:
        provider, api: who sells it under which name.
        model: name of the same weights in the model library, ``""`` where unpublished.
        day: from which it held or on which it was seen.
        input, cached_input, output: $ per 1M tokens; cached input costs as input where the
            provider gives no discount.
        source: where.
    """

    provider: str
    api: str
    model: str
    day: date
    input: float
    cached_input: float
    output: float
    source: str

    def usd_per_query(self, isl: Any, osl: Any, cached_share: Any = 0.0) -> Any:
        """Return $ of a query of ``isl`` input and ``osl`` output tokens; broadcasts.

        Args:
            cached_share: share of the input tokens that the provider finds in its cache.
        """
        cached = np.asarray(cached_share, float)
        per_input = self.input * (1.0 - cached) + self.cached_input * cached
        return (per_input * np.asarray(isl, float) + self.output * np.asarray(osl, float)) / 1e6

    def stale(self, today: date | None = None) -> bool:
        """Return whether the price was seen more than 180 days ago."""
        return ((today or date.today()) - self.day).days > STALE_DAYS


def api_prices(api: str = "", model: str = "", provider: str = "") -> list[ApiPrice]:
    """Return prices in order of their day, all or those of an API, a model or a provider.

    Raises:
        InputError: a name is given and has no price; the nearest is suggested.
    """
    found = [_price(row) for row in read_table("api_prices").get("price", [])]
    for key, wanted in (("api", api), ("model", model), ("provider", provider)):
        if wanted:
            names = {getattr(p, key) for p in found} - {""}
            if not names:
                raise InputError(f"api prices: none has a {key}")
            found = [p for p in found if getattr(p, key).lower() == wanted.lower()]
            if not found:
                raise unknown_name(f"{key} with a price", wanted, names)
    return sorted(found, key=lambda p: p.day)


def api_price(api: str, on: date | None = None) -> ApiPrice:
    """Return the price of an API that held on a day (the newest by default).

    Raises:
        InputError: there is none, or none yet on that day.
    """
    prices = api_prices(api=api)
    held = [p for p in prices if on is None or p.day <= on]
    if not held:
        raise InputError(f"api '{api}': no price before {on}; the first is of {prices[0].day}")
    return held[-1]


def yearly_decline(prices: list[ApiPrice], isl: float = 1000.0, osl: float = 300.0) -> float:
    """Return the yearly fall of the price of a query over a list of prices, 0.5 for a half.

    The slope of log price against time (least squares); 0 where there are fewer than two days.
    """
    days = np.array([p.day.toordinal() for p in prices], float) / 365.25
    if len(set(days.tolist())) < 2:
        return 0.0
    logs = np.log([float(p.usd_per_query(isl, osl)) for p in prices])
    return float(1.0 - np.exp(np.polyfit(days - days.mean(), logs, 1)[0]))


def _price(row: dict[str, Any]) -> ApiPrice:
    where = f"{table_path('api_prices')}: {row.get('provider')} {row.get('api')}"
    if not row.get("source"):
        raise InputError(f"{where}: has no source")
    cached = number(row, "cached_input", where) if "cached_input" in row else None
    price = number(row, "input", where)
    return ApiPrice(
        str(row.get("provider", "")), str(row.get("api", "")), str(row.get("model", "")),
        parse_date(str(row.get("date", "")), where), price, price if cached is None else cached,
        number(row, "output", where), str(row["source"]),
    )  # fmt: skip
