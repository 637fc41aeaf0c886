"""A simulation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from costsim.reports.tables import plain_table
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.planning.simulate import Simulated

LATENCIES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("ITL", "itl_s"), ("E2E", "e2e_s"),
             ("queueing", "queue_s"))  # fmt: skip


def simulation_table(found: Simulated) -> Any:
    """Return latencies with their intervals, throughput, use and cost of a simulation."""
    from rich.console import Group

    figures = found.figures
    tables = [plain_table(heading(found), ("", "mean", "90 % interval", "p50", "p90", "p99",
                                           "90 % interval"), _latency_rows(figures))]
    if len(figures["classes"]) > 1 or found.result.classes[0].name != "all" or _bound(found):
        tables.append(_class_table(figures))
    if len(figures["pools"]) > 1:
        tables.append(_pool_table(found, figures))
    return Group(*tables, *_lines(found, figures))


def heading(found: Simulated) -> str:
    """Return what was simulated, in a line."""
    kinds = [
        f"{part.count} x {int(part.deployment.accelerators)} {part.deployment.hardware.name} "
        f"({part.deployment.layout}{'' if part.role == 'both' else ', ' + part.role})"
        for part in found.case.parts
    ]
    models = dict.fromkeys(part.deployment.model.title for part in found.case.parts)
    text = f"{' and '.join(models)} on {' + '.join(kinds)}"
    return f"{found.case.title}: {text}" if found.case.title else text


def _bound(found: Simulated) -> bool:
    slo = found.result.classes[0]
    return min(slo.ttft_s, slo.tpot_s, slo.e2e_s) < float("inf")


def _latency_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, key in LATENCIES:
        shown = [_time(figures[key][s]) for s in ("mean", "p50", "p90", "p99")]
        ranges = [_interval(figures["intervals"].get(key, {}).get(s)) for s in ("mean", "p99")]
        rows.append([name, shown[0], ranges[0], *shown[1:], ranges[1]])
    return rows


def _time(value: float) -> str:
    return format_quantity(float(value), "time") if value == value else "–"


def _interval(ends: Any) -> str:
    if not ends or ends[0] != ends[0]:
        return "–"
    return f"{_time(max(ends[0], 0.0))} – {_time(ends[1])}"


def _class_table(figures: Mapping[str, Any]) -> Any:
    rows = [
        [name, f"{row['requests']:,.0f}", f"{row['finished']:,.0f}",
         f"{100 * row['attainment']:.1f} %", f"{row['goodput_per_s']:.3g}",
         _time(row["ttft_s"]["p99"]), _time(row["tpot_s"]["p99"]),
         _money(row["usd_per_query"])]
        for name, row in figures["classes"].items()
    ]  # fmt: skip
    return plain_table("Classes", ("", "requests", "finished", "met", "goodput/s", "TTFT p99",
                                   "TPOT p99", "$ a query"), rows)


def _pool_table(found: Simulated, figures: Mapping[str, Any]) -> Any:
    rows = [
        [name, f"{found.loads[name].offered:.3g} of {found.loads[name].capacity:.3g}",
         f"{row['requests_per_s']:.3g}", f"{100 * row['utilisation']:.0f} %",
         _time(row["ttft_s"]["p99"]), _time(row["tpot_s"]["p99"]),
         _money(row["usd_per_query"]), f"${row['usd_per_million_tokens']:.3g}"]
        for name, row in figures["pools"].items()
    ]  # fmt: skip
    return plain_table("Pools", ("", "offered/s", "served/s", "busy", "TTFT p99", "TPOT p99",
                                 "$ a query", "$ per 1M tokens"), rows)


def _lines(found: Simulated, figures: Mapping[str, Any]) -> list[str]:
    price = ", ".join(dict.fromkeys(
        f"${float(part.rent.central):.2f}/h ({part.rent.note})" for part in found.case.parts
    ))  # fmt: skip
    offered = found.offered_requests_per_s
    rate = f" of {offered:.3g} offered" if offered else ""
    runs = f", mean of {len(found.runs)} runs" if len(found.runs) > 1 else ""
    lines = [
        f"finished {figures['finished']:,.10g} of {figures['requests']:,.10g} requests in "
        f"{format_quantity(figures['duration_s'], 'time')} simulated{runs}; "
        f"{figures['preemptions']:,.10g} preemptions, {figures['rejected']:,.10g} rejected, "
        f"{figures['timed_out']:,.10g} timed out, {figures['failed']:,.10g} lost to failures",
        f"throughput {figures['requests_per_s']:.3g} requests/s{rate} (capacity "
        f"{found.capacity_requests_per_s:.3g}), {figures['output_tokens_per_s']:,.0f} output "
        f"tokens/s; utilisation {100 * figures['utilisation']:.0f} %, mean batch "
        f"{figures['mean_batch']:.1f}, KV cache {100 * figures['kv_occupancy']:.0f} % full"
        + _prefix(figures),
        f"{_money(figures['usd'])} in all, {_money(figures['usd_per_query'])} a query, "
        f"${figures['usd_per_million_tokens']:.3g} per 1M tokens at {price}; "
        f"{format_quantity(figures['energy_j'], 'energy')}",
    ]
    if figures["unserved"]:
        lines.append(f"{figures['unserved']:,.10g} requests were not served to the end")
    if not figures["complete"]:
        lines.append("stopped by the time limit: the figures are of an unfinished run")
    return lines


def _money(usd: float) -> str:
    return format_quantity(float(usd), "money")


def _prefix(figures: Mapping[str, Any]) -> str:
    share = figures["prefix_hit_share"]
    return f", prefix hits {100 * share:.0f} %" if share else ""
