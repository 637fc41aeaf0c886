"""Tables for the terminal (rich)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table

from costsim.quantity import Quantity
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.hardware.accelerator import Hardware
    from costsim.planning.estimate import Estimate

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


ESTIMATE_COLUMNS = ("deployment", "hardware", "layout", "batch", "TTFT", "TPOT",
                    "tok/s/accel", "bottleneck", "$/query", "$/1M in", "$/1M out")


def estimate_row(e: Estimate, name: str = "") -> list[str]:
    """Return the cells of one estimate."""
    d = e.deployment
    return [
        name or mark(d.model.title, d.model.provenance),
        f"{int(d.accelerators)}x {mark(d.hardware.name, _doubtful(d.hardware.provenance))}",
        str(d.layout), str(e.batch), shown(e.ttft_s), shown(e.tpot_s),
        shown(e.output_tokens_per_s_per_accelerator), e.bottleneck, shown(e.usd_per_query),
        shown(e.usd_per_million_input_tokens), shown(e.usd_per_million_output_tokens),
    ]


def _doubtful(provenance: str) -> str:
    return provenance if provenance == "rumoured" else ""


def estimate_table(estimates: Sequence[Estimate], names: Sequence[str] = (),
                   title: str = "") -> Group:
    """Return the table of operating points, with what it assumes below it."""
    labels = list(names) or [""] * len(estimates)
    rows = [estimate_row(e, n) for e, n in zip(estimates, labels, strict=True)]
    first = estimates[0]
    title = title or f"{first.isl:g} tokens in, {first.osl:g} out"
    table = plain_table(f"{title} · value \\[90 % interval]", ESTIMATE_COLUMNS, rows, left=3)
    notes = []
    for source in dict.fromkeys(f"{e.deployment.hardware.name}: {e.provenance}; rent "
                                f"${float(e.rent.central):.2f}/h ({e.rent.note})"
                                for e in estimates):
        notes.append(source)
    return Group(table, *notes)


def hardware_table(found: Sequence[Hardware]) -> Table:
    """Return accelerators with their main figures."""
    rows = []
    for h in found:
        rates = [_rate(h, key) for key in ("bf16", "fp8", "fp4")]
        rows.append([h.name, h.title, *rates, format_quantity(float(h.memory_bytes), "bytes"),
                     format_quantity(float(h.memory_bandwidth_bytes_per_s), "bandwidth"),
                     f"{int(h.scale_up.domain_size)} x "
                     + format_quantity(float(h.scale_up.bandwidth_bytes_per_s), "bandwidth"),
                     f"{float(h.tdp_w):g} W", _cheapest(h), calibration_note(h), h.provenance])
    columns = ("name", "title", "bf16", "fp8", "fp4", "memory", "bandwidth", "scale-up", "TDP",
               "rent from", "kernels", "figures")
    return plain_table("Accelerators (dense peak rates)", columns, rows, left=2)


def _rate(h: Hardware, key: str) -> str:
    value = h.peak_flop_per_s.get(key)
    return format_quantity(float(value), "flop_rate") if value else "–"


def _cheapest(h: Hardware) -> str:
    prices = [float(p.usd_per_hour) for p in h.prices if p.kind == "on_demand"]
    return f"${min(prices):.2f}/h" if prices else "–"


def calibration_note(h: Hardware) -> str:
    """Return where the kernel times of an accelerator come from."""
    if h.calibration:
        return "measured"
    return f"borrowed: {h.borrowed_calibration}" if h.borrowed_calibration else "roofline"


def hardware_sheet(h: Hardware) -> Group:
    """Return one accelerator: figures with sources, prices with dates."""
    sourced = [[key, s["provenance"], s["retrieved"], s["source"]]
               for key, s in h.sources.items()]
    prices = [[p.kind, f"${float(p.usd_per_hour):.2f}/h", p.date, p.provider or "–", p.provenance,
               p.source] for p in h.prices]
    return Group(
        hardware_table([h]),
        plain_table("Sources", ("figure", "provenance", "retrieved", "source"), sourced, left=4),
        plain_table("Rents", ("term", "price", "date", "provider", "provenance", "source"), prices,
                    left=1),
    )


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


def finite(value: float, text: str) -> str:
    """Return text for a finite value and a dash otherwise."""
    return text if math.isfinite(value) else "–"
