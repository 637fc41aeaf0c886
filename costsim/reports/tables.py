"""Tables for the terminal (rich)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
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


def model_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return models with their sizes."""
    rows = [[d["name"], mark(str(d["title"]), str(d["provenance"])),
             format_quantity(d["total_parameters"], "count"),
             format_quantity(d["active_parameters"], "count"),
             format_quantity(d["kv_bytes_per_token"], "bytes"), d.get("max_context") or "–"]
            for d in found]
    columns = ("name", "title", "total", "active", "KV per token", "context")
    return plain_table("Models", columns, rows, left=2)


def model_sheet(d: Mapping[str, Any]) -> Group:
    """Return one model: layers by kind, parts, cache and arithmetic by context."""
    layers = [[str(x.get("count")), str(x.get("mixer")), str(x.get("ffn")),
               format_quantity(float(x.get("parameters", 0)), "count")]
              for x in d.get("layers", [])]
    parts = [[k, format_quantity(float(v), "count")]
             for k, v in dict(d.get("parameters", {})).items() if isinstance(v, int | float) and v]
    flop = [[f"{int(c):,}", format_quantity(float(v), "flop")]
            for c, v in dict(d.get("flop_per_token", {})).items()]
    group: list[Any] = [
        model_table([d]),
        plain_table("Layers", ("count", "mixer", "feed-forward", "weights each"), layers, left=3),
    ]
    if parts:
        group.append(plain_table("Weights by part", ("part", "parameters"), parts))
    if flop:
        group.append(plain_table("FLOP per token by context", ("context", "FLOP"), flop, left=0))
    for line in d.get("ignored", ()):
        group.append(f"left out of the description: {line}")
    group.append(f"source: {d.get('source') or '–'}")
    return Group(*group)
