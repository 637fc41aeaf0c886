"""API prices by date against hosting the same model oneself."""

from __future__ import annotations

from typing import Any

from costsim.planning.results import ScenarioResult
from costsim.planning.studies.combinations import api_usd
from costsim.planning.studies.lookup import cheapest, marked, model_entry, usd, workload_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.units import format_quantity


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return, for each API price of a model here, the load at which hosting it pays."""
    workload = workload_entry(result, row.workload)
    rows, lines, names, ours, theirs = [], [], [], [], []
    for price in sorted(result.scenario.api_prices, key=lambda p: str(p["date"])):
        if not price.get("model"):
            continue
        entry = model_entry(result, str(price["model"]))
        best = cheapest([c for c in result.found(workload=workload.key)
                         if c.model.key == entry.key])
        public = api_usd(price, workload)
        if best is None or best.choice is None:
            lines.append(f"{entry.title}: nothing here serves it within the targets.")
            continue
        share = usd(best) / public
        load = share * best.choice.requests_per_s
        size = int(best.choice.deployment.accelerators)
        pays = (f"from {format_quantity(load, 'rate')} ({100 * share:.0f} % of a replica)"
                if share < 1 else "never at this price")
        rows.append([str(price["date"]), str(price["name"]), marked(entry),
                     format_quantity(public, "money"), f"{size}x {best.hardware.key}",
                     format_quantity(usd(best), "money"), pays])
        asked = format_quantity(public, "money")
        lines.append(f"{price['date']}, {price['name']}: {asked} a query against "
                     f"{format_quantity(usd(best), 'money')} at full load on "
                     f"{size}x {best.hardware.key} at today's rent; hosting pays {pays}.")
        names.append(f"{price['name']}\n{price['date']}")
        ours.append(usd(best))
        theirs.append(public)
    chart = Chart("bar", "", "$ per query", [Series("API price of its time", names, theirs),
                                             Series("hosted, at full load, today's rent", names,
                                                    ours)], log_y=True, money=True)
    return StudyResult(row.title, ("date", "API price", "model", "API $/query", "hosted on",
                                   "$/query at full load", "hosting pays"), rows, lines, chart,
                       row.source)
