"""Which levers, alone and together, cut the cost of a query as much as a public price fell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from costsim.errors import unknown_name
from costsim.planning.cells import price_cell
from costsim.planning.results import Cell, ScenarioResult
from costsim.planning.studies.lookup import hardware_entry, marked, model_entry, usd, workload_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.units import format_quantity

Key = tuple[str, str, float]


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return every model × accelerator × TPOT target against the one before the price fell."""
    workload = workload_entry(result, row.workload)
    base_model, base_hardware = model_entry(result, row.model), hardware_entry(result, row.hardware)
    fell = price_ratio(result, row.before, row.after, workload)
    cells: dict[Key, Cell] = {}
    for model in result.scenario.models:
        for hardware in result.scenario.hardware:
            for tpot in row.tpot:
                asked = replace(workload, target=replace(workload.target, tpot_s=tpot))
                key = (model.key, hardware.key, tpot)
                cells[key] = price_cell(result.scenario, model, hardware, asked)
    base = cells[base_model.key, base_hardware.key, row.tpot[0]]
    before = usd(base)
    served = {k: c for k, c in cells.items() if c.estimate is not None and not c.reason}
    order = sorted(served, key=lambda k: usd(served[k]))
    rows = [_row(served[k], k[2], before, fell) for k in order]
    bars = [Series(h.key, [f"{m.title}" for m in result.scenario.models],
                   [before / usd(cells[m.key, h.key, row.tpot[0]]) for m in
                    result.scenario.models]) for h in result.scenario.hardware]
    chart = Chart("bar", "", "times cheaper than before", bars,
                  level=(fell, f"public price fell {fell:.1f}x at this mix of tokens"))
    lines = _findings(result, row, served, before, fell)
    return StudyResult(
        row.title, ("model", "hardware", "TPOT target", "batch", "$/query", "times cheaper",
                    "enough"), rows, lines, chart, row.source,
        sum(c.choice.considered for c in cells.values() if c.choice))


def price_ratio(result: ScenarioResult, before: str, after: str, workload: Any) -> float:
    """Return how many times the public price of a request fell."""
    prices = {p["name"]: p for p in result.scenario.api_prices}
    cost = []
    for name in (before, after):
        if name not in prices:
            raise unknown_name("API price of a study", name, prices)
        cost.append(api_usd(prices[name], workload))
    return cost[0] / cost[1]


def api_usd(price: Any, workload: Any) -> float:
    """Return what a request costs at a public price of tokens."""
    return float(workload.isl * price["input_usd_per_million"]
                 + workload.osl * price["output_usd_per_million"]) / 1e6


def _row(cell: Cell, tpot: float, before: float, fell: float) -> list[str]:
    factor = before / usd(cell)
    return [marked(cell.model), cell.hardware.key, format_quantity(tpot, "time"),
            str(cell.choice.batch if cell.choice else 0), format_quantity(usd(cell), "money"),
            f"{factor:.1f}", "yes" if factor >= fell else "no"]


def _findings(
    result: ScenarioResult, row: Any, served: dict[Key, Cell], before: float,
    fell: float,
) -> list[str]:
    enough = [k for k in served if before / usd(served[k]) >= fell]
    lines = [f"The public price of such a query fell {fell:.1f}x; {len(enough)} of "
             f"{len(served)} combinations cut the cost at full load at least as much."]
    for what, fixed in _levers(result, row):
        own = [k for k in served if fixed(k) and k != (row.model, row.hardware, row.tpot[0])]
        if own:
            best = min(own, key=lambda k: usd(served[k]))
            factor = before / usd(served[best])
            verdict = "enough" if factor >= fell else "not enough"
            lines.append(f"{what} cuts at most {factor:.1f}x ({_said(result, best)}): {verdict}.")
    if enough:
        easiest = max(enough, key=lambda k: (_same(k, row), usd(served[k])))
        factor = before / usd(served[easiest])
        lines.append(f"Enough with the fewest changes: {_said(result, easiest)}, {factor:.1f}x.")
    return lines


def _levers(result: ScenarioResult, row: Any) -> list[tuple[str, Callable[[Key], bool]]]:
    """Return each lever with the combinations that pull no other."""
    base = model_entry(result, row.model)
    plain = {m.key for m in result.scenario.models if m.precision == base.precision}
    same = {m.key for m in result.scenario.models if m.model.name == base.model.name}
    here = (row.hardware, row.tpot[0])
    return [
        ("Quantisation", lambda k: k[0] in same and k[1:] == here),
        ("Another sparsity in the same bits", lambda k: k[0] in plain and k[1:] == here),
        ("Sparsity together with quantisation",
         lambda k: k[0] not in plain | same and k[1:] == here),
        ("The hardware", lambda k: k[0] == row.model and k[2] == row.tpot[0]),
        ("A looser latency target, and with it a larger batch,",
         lambda k: k[:2] == (row.model, row.hardware)),
    ]


def _same(key: Key, row: Any) -> int:
    return (key[0] == row.model) + (key[1] == row.hardware) + (key[2] == row.tpot[0])


def _said(result: ScenarioResult, key: Key) -> str:
    return (f"{model_entry(result, key[0]).title} on {key[1]} at TPOT ≤ "
            f"{format_quantity(key[2], 'time')}")
