"""Tables and figure of a user's benchmark against the prediction, and of a refit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from costsim.reports.style import colours, figure, save
from costsim.reports.tables import plain_table
from costsim.reports.validation import percent
from costsim.units import format_quantity

NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E", "requests_per_s": "requests/s",
         "output_tokens_per_s": "output tokens/s"}


def value_text(metric: str, value: float) -> str:
    """Return a latency with its unit, or a rate."""
    return format_quantity(value, "time") if metric.endswith("_s") and not metric.endswith(
        "per_s") else f"{value:,.4g}"


def benchmark_table(data: Mapping[str, Any]) -> Group:
    """Return the terminal's tables of a benchmark: every run, then the error by metric."""
    head = (f"{data['model']} on {data['hardware']} ({data['layout']}), engine {data['engine']}; "
            f"{data['calibration']}")
    rows: list[list[str]] = []
    notes: dict[str, list[str]] = {}
    for run in data["runs"]:
        first = [run["load"], f"{run['batch']:.4g}", f"{run['isl']:.0f}/{run['osl']:.0f}"]
        for m in run["metrics"]:
            name = m["metric"]
            rows.append([*first, NAMES[name], value_text(name, m["measured"]),
                         value_text(name, m["predicted"]),
                         f"{value_text(name, m['low'])} – {value_text(name, m['high'])}",
                         percent(m["error"], True), "yes" if m["inside"] else "no"])
            first = ["", "", ""]
        for note in run["notes"]:
            notes.setdefault(note, []).append(run["source"])
    columns = ("load", "in flight", "ISL/OSL", "metric (mean)", "measured", "predicted",
               "90 % interval", "error", "inside")
    return Group(head, plain_table("Your benchmark against the prediction", columns, rows, left=4),
                 summary_table("Error by metric", data["summary"]),
                 *(f"{_where(sources, len(data['runs']))}: {note}"
                   for note, sources in notes.items()))


def _where(sources: Sequence[str], runs: int) -> str:
    return "all runs" if len(sources) == runs > 1 else ", ".join(sources)


def summary_table(title: str, summary: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the terminal's table of errors by metric."""
    rows = [[NAMES[name], str(s["runs"]), percent(s["median"]), percent(s["worst"]),
             percent(s["bias"], True), percent(s["inside"])] for name, s in summary.items()]
    return plain_table(title, ("metric", "runs", "median", "worst", "bias", "in 90 %"), rows)


FIGURES = {"kernel_time_factor": "kernel time factor", "host_step_s": "host time of a step",
           "frontend_s": "front end"}


def refit_table(data: Mapping[str, Any]) -> Group:
    """Return the terminal's tables of a refit: figures, then errors before and after."""
    rows = [[FIGURES[name], _figure(name, data["before"][name]), _figure(name, data["after"][name])]
            for name in FIGURES]
    parts: list[Any] = [
        f"engine '{data['name']}' from '{data['base']}', fitted to {data['fitted_on']} runs",
        plain_table("Fitted", ("figure", "before", "after"), rows),
        _before_after("Runs that were fitted", data["before_fit"], data["after_fit"])]
    if data["before_held"]:
        parts.append(_before_after("Held out", data["before_held"], data["after_held"]))
    parts.append(f"held out: {data['held_out']}")
    parts.append(f"use it: costsim estimate … --engine {data['name']}")
    return Group(*parts)


def _figure(name: str, value: float) -> str:
    return f"{value:.4g}" if name == "kernel_time_factor" else format_quantity(value, "time")


def _before_after(
    title: str, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Any:
    rows = [[NAMES[name], str(b["runs"]), percent(b["median"]), percent(after[name]["median"]),
             percent(b["bias"], True), percent(after[name]["bias"], True), percent(b["inside"]),
             percent(after[name]["inside"])] for name, b in before.items() if name in after]
    columns = ("metric", "runs", "median before", "after", "bias before", "after",
               "in 90 % before", "after")
    return plain_table(title, columns, rows)


def draw_benchmark(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw measured and predicted values of each metric over the load, with the interval."""
    metrics = [m for m in ("ttft_s", "tpot_s", "output_tokens_per_s") if m in data["summary"]]
    title = f"{data['model']} on {data['hardware']} ({data['layout']}): measured and predicted"
    foot = f"costsim; engine {data['engine']}; {data['calibration']}; bands: 90 % interval"
    with figure(title, foot, columns=len(metrics), height=4.6) as (drawn, axes):
        for axis, metric in zip(axes if len(metrics) > 1 else [axes], metrics, strict=True):
            _panel(axis, metric, _series(data["runs"], metric))
        return save(drawn, folder, "benchmark")


def _series(runs: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, ...]]:
    return sorted((run["batch"], m["measured"], m["predicted"], m["low"], m["high"])
                  for run in runs for m in run["metrics"] if m["metric"] == metric)


def _panel(axis: Any, metric: str, rows: Sequence[tuple[float, ...]]) -> None:
    tint = colours(["predicted", "measured"])
    scale = 1e3 if metric in ("ttft_s", "tpot_s") else 1.0
    batch, measured, predicted, low, high = (list(c) for c in zip(*rows, strict=True))
    below = [scale * (p - lo) for p, lo in zip(predicted, low, strict=True)]
    above = [scale * (hi - p) for p, hi in zip(predicted, high, strict=True)]
    axis.errorbar(batch, [scale * p for p in predicted], yerr=[below, above], fmt="o-", capsize=3,
                  color=tint["predicted"], label="predicted", lw=1, ms=4)
    axis.plot(batch, [scale * m for m in measured], "s", color=tint["measured"], label="measured",
              ms=5)
    axis.set_xlabel("requests in flight")
    axis.set_ylabel(f"{NAMES[metric]} [ms]" if scale > 1 else NAMES[metric])
    if max(batch) > 4 * min(batch):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_ylim(bottom=0)
    axis.legend()
