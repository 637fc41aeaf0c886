"""Tables for the terminal (rich)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from costsim.quantity import Quantity
from costsim.units import format_quantity

_DIMENSION = {"s": "time", "tokens/s": "count", "/s": "count", "$": "money",
              "$/1M tokens": "money"}


def console(width: int | None = None) -> Console:
    """Return a console for standard output; wide where it is no terminal."""
    plain = Console()
    if width is None and not plain.is_terminal:
        width = 200
    return Console(width=width, soft_wrap=False)


def shown(quantity: Quantity, digits: int = 3) -> str:
    """Return a value with its 90 % interval, such as ``"12.3 ms [10.9, 14]"``."""
    low, high = quantity.interval(0.90)
    dimension = _DIMENSION.get(quantity.unit, "count")
    value = format_quantity(quantity.value, dimension, digits)
    if quantity.log_error_low == 0 and quantity.log_error_high == 0:
        return value
    bounds = [format_quantity(x, dimension, 2) for x in (low, high)]
    unit = value.split(" ")[-1] if " " in value else ""
    short = [b.removesuffix(f" {unit}") if unit else b for b in bounds]
    return f"{value} \\[{short[0]} – {short[1]}]"


def plain_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]],
                left: int = 1) -> Table:
    """Return a table; columns after the first ``left`` are aligned right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table


def mark(name: str, provenance: str) -> str:
    """Return a name marked where what it stands for is rumoured or hypothetical."""
    marks = {"rumoured": "rumoured", "hypothetical": "hypothetical", "unverified": "unverified"}
    return f"{name} ({marks[provenance]})" if provenance in marks else name
