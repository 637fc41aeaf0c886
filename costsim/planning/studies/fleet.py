"""The fleet that a day of users needs, hour by hour, through the planner."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.models.variants import quantised
from costsim.planning.plan import Plan, plan_demands
from costsim.planning.plan_options import PlanOptions
from costsim.planning.results import ScenarioResult
from costsim.planning.scenario import ModelEntry, Workload
from costsim.planning.studies.lookup import marked, model_entry, workload_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.planning.workload import Demand
from costsim.units import format_quantity

COLUMNS = ("model", "hardware", "chips at the peak", "chips at the trough", "mean load",
           "$ a month", "$/query", "$ a user and month")


def hourly_rates(users: float, queries_per_day: float, shape: Any) -> np.ndarray:
    """Return requests/s in each hour of the day."""
    weights = np.asarray(shape, float)
    return users * queries_per_day / 3600.0 * weights / weights.sum()


def planned(
    result: ScenarioResult, parts: list[tuple[ModelEntry, np.ndarray]], workload: Workload
) -> Plan:
    """Return the cheapest fleet for the hourly rates of some models, not simulated."""
    models, demands = {}, []
    for entry, rates in parts:
        model = entry.model
        if entry.precision.ffn not in (model.quantisation.ffn, model.quantisation.experts):
            model = quantised(model, entry.precision.ffn, name=entry.key)
        models[entry.key] = model
        demands.append(Demand(entry.key, entry.key, rates, workload.isl, workload.osl,
                              target=workload.target, prefix_hit_share=workload.cached_share))
    scenario = result.scenario
    limits = {h.hardware.name: float(h.limit) for h in scenario.hardware}
    options = PlanOptions(check=False, compare=False, limits=limits, disaggregated=False,
                          max_accelerators=scenario.max_accelerators, engine=scenario.engine)
    return plan_demands(demands, models, [h.hardware for h in scenario.hardware], options)


def peak_and_trough(found: Plan) -> tuple[float, float, str]:
    """Return the most and the fewest chips in service, and what they are."""
    chips = found.chips()
    total = np.sum(list(chips.values()), axis=0)
    return float(np.max(total)), float(np.min(total)), " + ".join(sorted(chips))


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return the fleet of each model for the workload's users over a day."""
    workload = workload_entry(result, row.workload)
    rates = hourly_rates(workload.users, workload.queries_per_user_day, row.shape)
    keys = row.models or [m.key for m in result.scenario.models]
    rows, series, found, lines, points = [], [], {}, [], 0
    for key in keys:
        entry = model_entry(result, key)
        try:
            plan = planned(result, [(entry, rates)], workload)
        except InputError as error:
            lines.append(f"{entry.title}: no fleet carries it ({error}).")
            continue
        peak, trough, what = peak_and_trough(plan)
        found[key] = plan
        rows.append([marked(entry), what, f"{peak:,.0f}", f"{trough:,.0f}",
                     f"{100 * rates.mean() / rates.max():.0f} %",
                     f"${plan.usd_per_month / 1e6:,.1f} million",
                     format_quantity(plan.usd_per_query, "money"),
                     format_quantity(plan.usd_per_month / workload.users, "money")])
        hours = np.sum(list(plan.chips().values()), axis=0)
        series.append(Series(entry.title, list(range(24)), [float(v) for v in hours]))
        points += int(plan.as_dict()["operating_points_considered"])
    lines = _findings(result, workload, rates, found) + lines
    chart = Chart("line", "hour of the day", "chips in service", series, log_y=True)
    return StudyResult(row.title, COLUMNS, rows, lines, chart,
                       f"{row.source}; shape of the day: {row.shape_source}", points)


def _findings(
    result: ScenarioResult, workload: Workload, rates: np.ndarray, found: dict[str, Plan]
) -> list[str]:
    lines = [f"{format_quantity(workload.users, 'count')} weekly users with "
             f"{workload.queries_per_user_day:g} queries a day are {rates.mean():,.0f} requests a "
             f"second in the mean and {rates.max():,.0f} at the peak hour."]
    if not found:
        return lines
    by_cost = sorted(found, key=lambda k: found[k].usd_per_month)
    for key in by_cost:
        peak, trough, what = peak_and_trough(found[key])
        month = found[key].usd_per_month
        lines.append(f"{model_entry(result, key).title}: {trough:,.0f} to {peak:,.0f} {what} over "
                     f"the day, ${month / 1e6:,.1f} million a month, "
                     f"{format_quantity(month / workload.users, 'money')} a user.")
    first, last = by_cost[0], by_cost[-1]
    if first != last:
        ratio = found[last].usd_per_month / found[first].usd_per_month
        lines.append(f"{model_entry(result, first).title} needs {ratio:.1f}x less money than "
                     f"{model_entry(result, last).title}; quality is not equal.")
    return lines
