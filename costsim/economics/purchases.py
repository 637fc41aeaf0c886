"""Prices asked for accelerators and servers, to compare a profile's list price with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from costsim.economics.prices import parse_date
from costsim.economics.tables import number, read_table, table_path
from costsim.errors import InputError, unknown_name

KINDS = ("board", "server", "cluster")


@dataclass(frozen=True)
class Purchase:
    """A price asked for hardware.

    Args:
        hardware: name of the profile.
        what: one of `KINDS`; how much besides the accelerator is in the price.
        day: on which it was asked.
        usd: per accelerator.
        source: where.
    """

    hardware: str
    what: str
    day: date
    usd: float
    source: str


def purchases(hardware: str = "") -> list[Purchase]:
    """Return prices asked, of all hardware or of one, oldest first."""
    rows = [_purchase(row) for row in read_table("purchases").get("purchase", [])]
    return sorted((p for p in rows if hardware in ("", p.hardware)), key=lambda p: p.day)


def _purchase(row: dict[str, Any]) -> Purchase:
    where = f"{table_path('purchases')}: {row.get('hardware')}"
    if row.get("what") not in KINDS:
        raise unknown_name(f"what in {where}", str(row.get("what")), KINDS)
    if not row.get("source"):
        raise InputError(f"{where}: has no source")
    day = parse_date(str(row.get("date", "")), where)
    return Purchase(str(row.get("hardware", "")), str(row["what"]), day, number(row, "usd", where),
                    str(row["source"]))  # fmt: skip
