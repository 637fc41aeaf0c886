"""What each workload costs over the first one, such as images over text."""

from __future__ import annotations

from typing import Any

from costsim.planning.cells import prompt_tokens
from costsim.planning.results import ScenarioResult
from costsim.planning.studies.lookup import cheapest, marked, usd
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.units import format_quantity


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return $ per query of each workload by model on its cheapest accelerator."""
    first, *others = result.scenario.workloads
    rows, lines, series = [], [], []
    for model in result.scenario.models:
        found = {w.key: cheapest([c for c in result.found(workload=w.key)
                                  if c.model.key == model.key])
                 for w in result.scenario.workloads}
        base = found[first.key]
        if base is None:
            lines.append(f"{model.title}: cannot be served within the targets.")
            continue
        y = []
        for w in (first, *others):
            cell = found[w.key]
            tokens = prompt_tokens(model, w)
            if cell is None:
                rows.append([marked(model), w.title, f"{tokens:,.0f}", "–", "–", "–", "–"])
                y.append(float("nan"))
                continue
            count = w.images[0] if w.images else 0
            each = (usd(cell) - usd(base)) / count if count else 0.0
            rows.append([marked(model), w.title, f"{tokens:,.0f}", cell.hardware.key,
                         format_quantity(usd(cell), "money"), f"{usd(cell) / usd(base):.2f}",
                         format_quantity(each, "money") if count else "–"])
            y.append(usd(cell))
        series.append(Series(model.title, [w.title for w in (first, *others)], y))
        last = found[others[-1].key] if others else None
        if last is not None:
            count = others[-1].images[0] if others[-1].images else 1
            lines.append(
                f"{model.title}: {others[-1].title.lower()} make a query "
                f"{usd(last) / usd(base):.1f}x as dear, {format_quantity(usd(base), 'money')} to "
                f"{format_quantity(usd(last), 'money')}; {row.unit} adds "
                f"{format_quantity((usd(last) - usd(base)) / count, 'money')}.")
    chart = Chart("bar", "", "$ per query", series, log_y=True, money=True)
    return StudyResult(row.title, ("model", "workload", "prompt tokens", "hardware", "$/query",
                                   f"over {first.title.lower()}", f"for {row.unit}"), rows, lines,
                       chart, row.source)
