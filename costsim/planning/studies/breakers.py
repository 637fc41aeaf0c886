"""What takes the gain of sparsity away: skewed routing, small batches, expert-parallel scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.layout import Layout
from costsim.engine.settings import Routing
from costsim.engine.steady_state import operating_point
from costsim.errors import InputError
from costsim.planning.cells import deployment_of, price_cell
from costsim.planning.choose import best_batch
from costsim.planning.results import Cell, ScenarioResult
from costsim.planning.studies.lookup import hardware_entry, model_entry, workload_entry
from costsim.planning.studies.result import Chart, Series, StudyResult


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return cost over the base model's at full load, under skew, with small batches, by EP."""
    hardware, workload = hardware_entry(result, row.hardware), workload_entry(result, row.workload)
    cells = {k: price_cell(result.scenario, model_entry(result, k), hardware, workload)
             for k in (row.base, *row.models)}
    base = cells[row.base]
    if base.choice is None:
        raise InputError(f"{result.scenario.name}: study '{row.title}': {base.name} cannot be "
                         f"served on {row.hardware}")
    rows: list[list[str]] = []
    lines: list[str] = []
    series: list[Series] = []
    for key in row.models:
        cell = cells[key]
        if cell.choice is None:
            lines.append(f"{cell.name} does not fit {row.hardware}.")
            continue
        ratio = _cost(cell) / _cost(base)
        rows.append([cell.name, "at full load, even routing", f"{ratio:.2f}"])
        at = len(lines)
        lines.append(f"At full load {cell.name} costs {ratio:.2f}x what {base.name} costs a query "
                     f"on {row.hardware}.")
        lines += _skewed(cell, row, rows, ratio)
        lines += _small(base, cell, row, rows, series)
        lines += _spread(result, cell, row, rows, workload, _cost(base))
        lines.insert(at, _verdict(cell.name, base.name, rows))
    chart = Chart("line", "requests in flight per replica of the base model's accelerators",
                  f"cost over {base.name}", series, log_x=True, level=(1.0, "as the base model"))
    return StudyResult(row.title, ("model", "what", f"cost over {base.name}"), rows, lines,
                       chart if series else None, row.source)


_CONDITIONS = (("load of experts", "skew of routing"), ("requests in flight", "batch"),
               ("EP", "width of expert parallelism"))


def _verdict(name: str, base: str, rows: list[list[str]]) -> str:
    """Return under what a model costs less than the base, from its rows."""
    parts = []
    for mark, label in _CONDITIONS:
        found = [(what, float(ratio)) for who, what, ratio in rows
                 if who == name and mark in what and ratio.replace(".", "").isdigit()]
        lost = [what for what, ratio in found if ratio >= 1.0]
        if not found:
            continue
        if len(lost) in (0, len(found)):
            parts.append(f"{'dearer' if lost else 'cheaper'} at every {label} tried")
        else:
            kept = [what for what, ratio in found if ratio < 1.0]
            parts.append(f"cheaper with {kept[-1]}, not with {lost[0]}")
    return f"{name} against {base}: {'; '.join(parts) or 'nothing was varied'}."


def _cost(cell: Cell) -> float:
    assert cell.choice is not None
    return float(cell.choice.deployment.accelerators) / cell.choice.requests_per_s


def _skewed(cell: Cell, row: Any, rows: list[list[str]], even: float) -> list[str]:
    """Add the cost with a few hot experts, the layout as it is."""
    assert cell.choice is not None
    d, e = cell.choice.deployment, cell.estimate
    assert e is not None
    found = []
    for alpha in row.routing_alpha:
        skew = replace(d.settings, routing=Routing("power_law", alpha))
        hot = best_batch(d.with_changes(settings=skew), isl=e.isl, osl=e.osl,
                         target=cell.workload.target)
        ratio = even * cell.choice.requests_per_s / hot.requests_per_s
        rows.append([cell.name, f"load of experts ∝ rank^-{alpha:g}"
                     + ("" if hot.met else " (misses the targets)"), f"{ratio:.2f}"])
        found.append((alpha, ratio))
    if not found:
        return []
    worst = max(found, key=lambda pair: pair[1])
    lost = next((alpha for alpha, ratio in found if ratio > 0.995), None)
    if worst[1] < 1.02 * even:
        return [f"Skewed routing up to load ∝ rank^-{max(row.routing_alpha):g} costs nothing here: "
                "fewer experts are touched, and no rank waits long."]
    text = (f"Skewed routing (load ∝ rank^-{worst[0]:g}) raises that to {worst[1]:.2f}x: ranks "
            "wait for the one with the hottest experts")
    if even < 1.0:
        text += (f", and the gain is gone from an exponent of {lost:g}." if lost is not None
                 else ", and a gain is left.")
    return [text if text.endswith(".") else text + "."]


def _per_request(d: Deployment, batch: Any, isl: float, osl: float) -> Any:
    """Return accelerator seconds per request with a batch on each replica."""
    point = operating_point(d, batch=batch, isl=isl, osl=osl, detailed=False)
    return np.asarray(d.accelerators, float) / np.asarray(point.requests_per_s)


def _small(base: Cell, cell: Cell, row: Any, rows: list[list[str]], series: list[Series]
           ) -> list[str]:
    """Add the cost with the same few requests on as many accelerators of either model."""
    if not row.batches:
        return []
    assert base.choice is not None and cell.choice is not None and cell.estimate is not None
    e, n = cell.estimate, float(base.choice.deployment.accelerators)
    batches = np.asarray(row.batches, float)
    share = float(cell.choice.deployment.accelerators) / n
    ours = _per_request(cell.choice.deployment, np.maximum(batches * share, 1.0), e.isl, e.osl)
    theirs = _per_request(base.choice.deployment, batches, e.isl, e.osl)
    ratios = ours / theirs
    for b, ratio in zip(row.batches, ratios, strict=True):
        rows.append([cell.name, f"{b} requests in flight on {n:g} accelerators", f"{ratio:.2f}"])
    series.append(Series(cell.name, row.batches, [float(r) for r in ratios]))
    worst, full = int(np.argmax(ratios)), float(ratios[-1])
    if ratios[worst] < 1.05 * full:
        return [f"Small batches do not hurt it more than the base model: {ratios[0]:.2f}x with "
                f"{row.batches[0]} requests in flight on {n:g} accelerators."]
    return [f"Batches thin out: with {row.batches[worst]} requests in flight on {n:g} accelerators "
            f"it costs {ratios[worst]:.2f}x the base model, with {row.batches[-1]} {full:.2f}x: "
            "experts are read for few tokens each."]


def _spread(
    result: ScenarioResult, cell: Cell, row: Any, rows: list[list[str]], workload: Any, base: float
) -> list[str]:
    """Add the cost at each width of expert parallelism."""
    hardware = hardware_entry(result, row.hardware)
    found = []
    for ep in row.ep:
        d = deployment_of(result.scenario, cell.model, hardware, workload)
        try:
            spread = d.with_changes(layout=Layout(tp=8, ep=ep, dp=ep // 8))
            best = best_batch(spread, isl=workload.isl, osl=workload.osl, target=workload.target)
        except InputError:
            rows.append([cell.name, f"TP8 EP{ep} DP{ep // 8}", "does not fit"])
            continue
        ratio = ep / best.requests_per_s / base
        note = "" if best.met else " (misses the targets)"
        rows.append([cell.name, f"TP8 EP{ep} DP{ep // 8}{note}", f"{ratio:.2f}"])
        found.append((ep, ratio))
    if len(found) < 2:
        return []
    low, high = min(found, key=lambda f: f[1]), max(found, key=lambda f: f[1])
    return [f"Expert parallelism over {low[0]} accelerators costs {low[1]:.2f}x the base, over "
            f"{high[0]} {high[1]:.2f}x."]
