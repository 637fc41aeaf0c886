"""Tables of accelerators: all of them, and one with its sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from costsim.reports.tables import plain_table
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.hardware.accelerator import Hardware


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


def figures(h: Hardware) -> dict[str, str]:
    """Return every figure of a profile as text, under the key that its source stands under."""
    rates = {f"compute.{key}": (rate, "flop_rate") for key, rate in h.peak_flop_per_s.items()}
    links = {f"{name}.{key}": (getattr(link, field), dimension)
             for name, link in (("scale_up", h.scale_up), ("scale_out", h.scale_out))
             for key, field, dimension in (("domain_size", "domain_size", "count"),
                                           ("bandwidth", "bandwidth_bytes_per_s", "bandwidth"),
                                           ("latency", "latency_s", "time"),
                                           ("machine_spread", "machine_spread", "count"))}
    found: dict[str, tuple[Any, str]] = {
        **rates, **links,
        "compute.compute_units": (h.compute_units, "count"),
        "compute.structured_sparsity": (h.structured_sparsity, "count"),
        "memory.capacity": (h.memory_bytes, "bytes"),
        "memory.bandwidth": (h.memory_bandwidth_bytes_per_s, "bandwidth"),
        "memory.onchip": (h.onchip_memory_bytes, "bytes"),
        "host.bandwidth": (h.host_bandwidth_bytes_per_s, "bandwidth"),
        "host.memory": (h.host_memory_bytes, "bytes"),
        "power.tdp": (h.tdp_w, "power"), "power.idle": (h.idle_w, "power"),
        "power.server": (h.server_w_per_accelerator, "power"),
        "purchase.accelerator": (h.list_price_usd, "money"),
        "purchase.server_share": (h.server_price_usd_per_accelerator, "money"),
    }
    return {key: format_quantity(float(value), dimension)
            for key, (value, dimension) in found.items()}


def hardware_sheet(h: Hardware) -> Group:
    """Return one accelerator: figures with sources, prices with dates."""
    values = figures(h)
    sourced = [[key, values.get(key, "–"), s["provenance"], s["retrieved"], s["source"]]
               for key, s in h.sources.items()]
    prices = [[p.kind, f"${float(p.usd_per_hour):.2f}/h", p.date, p.provider or "–", p.provenance,
               p.source] for p in h.prices]
    return Group(
        hardware_table([h]),
        plain_table("Figures (rates dense; links per accelerator and direction)",
                    ("figure", "value", "provenance", "retrieved", "source"), sourced, left=5),
        plain_table("Rents", ("term", "price", "date", "provider", "provenance", "source"), prices,
                    left=1),
    )
