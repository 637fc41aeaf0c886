"""Rent of accelerators: many dated quotes in, a low, central and high price out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from costsim.economics.tables import number, read_table, table_path
from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware, Price

TERMS = ("on_demand", "spot", "reserved_1y", "reserved_3y", "owned")
TIERS = ("hyperscaler", "neocloud", "marketplace")
EVERYWHERE = "all"
STALE_DAYS = 180
CURRENT_DAYS = 550


@dataclass(frozen=True)
class Rent:
    """Price of one accelerator for an hour, as a range; iterates as low, central, high.

    Args:
        low, central, high: $/h; least and greatest of the current quotes, and the median over
            providers. Arrays where the hardware's prices are arrays.
        term: one of `TERMS`.
        quotes: the prices it was made from.
        newest: ISO date of the newest of them.
        age_days: of the newest quote on the day asked.
    """

    low: Any
    central: Any
    high: Any
    term: str
    quotes: tuple[Price, ...]
    newest: str
    age_days: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.low, self.central, self.high))

    @property
    def stale(self) -> bool:
        """Whether even the newest quote is older than 180 days."""
        return self.age_days > STALE_DAYS

    @property
    def doubtful(self) -> bool:
        """Whether the price is stale, or a quote of it has no source that was seen."""
        return self.stale or any(q.provenance in ("rumoured", "unverified") for q in self.quotes)

    @property
    def log_error(self) -> tuple[float, float]:
        """Standard deviations of log price below and above, the range taken as 90 %."""
        centre = np.asarray(self.central, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.log(centre / np.asarray(self.low, dtype=float)) / 1.6448536
            above = np.log(np.asarray(self.high, dtype=float) / centre) / 1.6448536
        return float(np.nan_to_num(np.max(below))), float(np.nan_to_num(np.max(above)))

    @property
    def note(self) -> str:
        """One line for a table: how many quotes, how old, whether stale."""
        sources = {q.provider or q.source for q in self.quotes}
        counts = (_count(len(self.quotes), "quote"), _count(len(sources), "source"))
        text = f"{self.term}, {counts[0]} of {counts[1]} to {self.newest}"
        if all(q.provider and tier_of(q.provider) == "hyperscaler" for q in self.quotes):
            text += ", hyperscalers alone"
        for doubt in ("rumoured", "unverified"):
            if any(q.provenance == doubt for q in self.quotes):
                text += f", {doubt}"
        return text + (f"; STALE: {self.age_days} days old" if self.stale else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def rent(
    hardware: Hardware,
    term: str = "on_demand",
    *,
    provider: str = "",
    region: str = "",
    today: date | None = None,
) -> Rent:
    """Return what one accelerator costs to rent for an hour.

    Quotes come from the hardware's profile and from the table ``rents`` (a user's own
    ``prices/rents.toml`` replaces the shipped one). Those of the 550 days before the newest
    count, of one provider and region the newest alone: low and high are the extremes, central is
    the median over providers, each with the median of its regions.

    Args:
        hardware: whose price.
        term: one of `TERMS`.
        provider: only quotes of this one or of this one of `TIERS`, where given (any letter case).
        region: only quotes of regions whose name begins so, where given, such as ``eu``, and those
            that hold in all regions.
        today: the day that ages count from; the current day by default.

    Raises:
        InputError: the term is unknown, or there is no quote; the message names those there are.
    """
    if term not in TERMS:
        raise unknown_name("price term", term, TERMS)
    quotes = [q for q in quotes_of(hardware) if q.kind == term and matches(q, provider, region)]
    if not quotes:
        raise InputError(_nothing(hardware, term, provider, region))
    dates = [parse_date(q.date, hardware.name) for q in quotes]
    newest = max(dates)
    current = _newest_of_each(
        [(d, q) for q, d in zip(quotes, dates, strict=True) if (newest - d).days <= CURRENT_DAYS]
    )
    values = np.stack(np.broadcast_arrays(*(np.asarray(q.usd_per_hour, float) for q in current)))
    sellers = [q.provider or q.source for q in current]
    each = [np.median(values[[s == name for s in sellers]], axis=0)
            for name in dict.fromkeys(sellers)]  # fmt: skip
    low, central, high = values.min(axis=0), np.median(each, axis=0), values.max(axis=0)
    if values.ndim == 1:
        low, central, high = float(low), float(central), float(high)
    age = ((today or date.today()) - newest).days
    return Rent(low, central, high, term, current, newest.isoformat(), age)


def _newest_of_each(dated: list[tuple[date, Price]]) -> tuple[Price, ...]:
    """Return the newest quote of each provider and region.

    One without region counts if it is the provider's newest; one for all regions replaces those
    that are older.
    """
    found: dict[tuple[str, str], tuple[date, Price]] = {}
    for day, quote in dated:
        key = (quote.provider or quote.source, quote.region)
        if key not in found or day >= found[key][0]:
            found[key] = (day, quote)
    latest: dict[str, date] = {}
    for (seller, _), (day, _) in found.items():
        latest[seller] = max(day, latest.get(seller, day))
    everywhere = {seller: day for (seller, region), (day, _) in found.items()
                  if region == EVERYWHERE}  # fmt: skip
    return tuple(q for (seller, region), (day, q) in found.items()
                 if day >= (everywhere.get(seller, day) if region else latest[seller]))  # fmt: skip


def quotes_of(hardware: Hardware) -> list[Price]:
    """Return every quote for an accelerator: its profile's, then the table's.

    The same price of the same term and month counts once. A quote marked ``unverified`` steps
    back where the term has one with a source.
    """
    quotes = list(hardware.prices)
    seen = {_key(q) for q in quotes}
    quotes += [q for q in _table_quotes().get(hardware.name, []) if _key(q) not in seen]
    sourced = {q.kind for q in quotes if q.provenance != "unverified"}
    return [q for q in quotes if q.provenance != "unverified" or q.kind not in sourced]


def _key(quote: Price) -> tuple[str, str, str]:
    return quote.kind, str(np.round(quote.usd_per_hour, 4)), quote.date[:7]


def terms_of(hardware: Hardware, provider: str = "", region: str = "") -> list[str]:
    """Return the terms for which there is a quote, in the order of `TERMS`.

    Args:
        hardware: whose. provider, region: as in `rent`.
    """
    kinds = {q.kind for q in quotes_of(hardware) if matches(q, provider, region)}
    return [term for term in TERMS if term in kinds]


def providers_of(hardware: Hardware) -> list[str]:
    """Return the names of the providers that quotes are of."""
    return sorted({q.provider for q in quotes_of(hardware)} - {""}, key=str.lower)


def tier_of(provider: str) -> str:
    """Return which of `TIERS` a provider belongs to, by the table ``providers``."""
    for tier, names in read_table("providers").items():
        if tier not in TIERS or not isinstance(names, list):
            raise unknown_name(f"key in {table_path('providers')}", tier, TIERS)
        if provider.lower() in (str(name).lower() for name in names):
            return str(tier)
    return "neocloud"


def parse_date(text: str, where: str) -> date:
    """Return the day of an ISO date; a year or a month counts as its last day known.

    Raises:
        InputError: it is no date.
    """
    parts = text.split("-")
    try:
        year = int(parts[0])
        month = int(parts[1]) if len(parts) > 1 else 6
        return date(year, month, int(parts[2]) if len(parts) > 2 else 15)
    except (ValueError, IndexError):
        raise InputError(f"{where}: price date '{text}': must be YYYY-MM-DD") from None


def matches(quote: Price, provider: str, region: str) -> bool:
    """Return whether a quote is of a provider, or of a kind of them, and holds in a region."""
    wanted = provider.lower()
    if wanted in TIERS:
        sold = bool(quote.provider) and tier_of(quote.provider) == wanted
    else:
        sold = wanted in ("", quote.provider.lower())
    where = quote.region.lower()
    return sold and (where == EVERYWHERE or where.startswith(region.lower()))


def _nothing(hardware: Hardware, term: str, provider: str, region: str) -> str:
    where = "".join(f", {k} {v}" for k, v in (("provider", provider), ("region", region)) if v)
    found = terms_of(hardware)
    known = f"quotes exist for {', '.join(found)}" if found else "it has no prices at all"
    if provider and not terms_of(hardware, provider):
        known += f"; providers: {', '.join(providers_of(hardware)) or 'none'}, or a kind of them: "
        known += ", ".join(TIERS)
    return f"hardware '{hardware.name}': no price for term {term}{where}; {known}"


def _table_quotes() -> dict[str, list[Price]]:
    where = str(table_path("rents"))
    found: dict[str, list[Price]] = {}
    for row in read_table("rents").get("quote", []):
        if not row.get("hardware"):
            raise InputError(f"{where}: a quote names no hardware")
        unknown = set(row) - {"hardware", "provider", "region", "date", "source", "provenance",
                              *TERMS}  # fmt: skip
        if unknown:
            raise unknown_name(f"key in {where}", min(unknown), TERMS)
        for term in TERMS:
            if term in row:
                found.setdefault(str(row.get("hardware")), []).append(_price(row, term, where))
    return found


def _price(row: dict[str, Any], term: str, where: str) -> Price:
    source = str(row.get("source", ""))
    if not source:
        raise InputError(f"{where}: a quote of {row.get('hardware')} has no source")
    return Price(
        term, number(row, term, where), str(row.get("date", "")), source,
        str(row.get("provider", "")), str(row.get("region", "")),
        str(row.get("provenance", "published")),
    )  # fmt: skip
