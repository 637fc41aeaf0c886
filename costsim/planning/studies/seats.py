"""Seats of an office assistant over time zones: licensed model, own model, public API."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.errors import unknown_name
from costsim.planning.plan import Plan
from costsim.planning.results import ScenarioResult
from costsim.planning.studies.combinations import api_usd
from costsim.planning.studies.fleet import hourly_rates, peak_and_trough, planned
from costsim.planning.studies.lookup import marked, model_entry, workload_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.planning.workload import HOURS_PER_MONTH
from costsim.units import format_quantity

WEEKS_A_MONTH = HOURS_PER_MONTH / 168.0


def zoned_rates(seats: float, queries: float, zones: Any, shape: Any, weekend: float) -> np.ndarray:
    """Return requests/s by hour of a UTC week of seats whose local days are shifted by zones.

    Args:
        seats: in all. queries: of a seat on a working day.
        zones: with ``share`` and ``utc_offset``. shape: 24 weights of the local day.
        weekend: requests of a day off over those of a working day.
    """
    total = sum(zone.share for zone in zones)
    week = np.concatenate([np.ones(5 * 24), np.full(2 * 24, weekend)])
    parts = [np.roll(np.tile(hourly_rates(seats * zone.share / total, queries, shape), 7) * week,
                     -zone.utc_offset) for zone in zones]
    return np.sum(parts, axis=0)


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return $ a seat and month of each way to serve the seats."""
    workload = workload_entry(result, row.workload)
    seats, queries = workload.users, workload.queries_per_user_day
    licensed, own = model_entry(result, row.licensed), model_entry(result, row.own)
    rates = zoned_rates(seats, queries, row.zones, row.shape, row.weekend)
    one = zoned_rates(seats, queries, row.zones[:1], row.shape, row.weekend)
    ways: list[tuple[str, Plan | None, float]] = []
    points = 0
    for share in sorted({0.0, *row.own_share}):
        parts = [(m, rates * part) for m, part in ((licensed, 1 - share), (own, share)) if part]
        plan = planned(result, parts, workload)
        points += int(plan.as_dict()["operating_points_considered"])
        name = (f"{marked(own)} for {100 * share:.0f} % of queries" if share
                else f"all on {marked(licensed)}")
        ways.append((name, plan, plan.usd_per_month / seats))
    together = planned(result, [(licensed, one)], workload)
    monthly = queries * (5.0 + 2.0 * row.weekend) * WEEKS_A_MONTH
    public = _api(result, row, workload) * monthly
    ways.append((f"public price of {row.api}", None, public))
    rows = [_row(name, plan, usd, row.seat_usd_per_month) for name, plan, usd in ways]
    lines = _findings(row, rates, one, ways, together)
    chart = Chart("line", "hour of UTC, Monday and Tuesday", "requests per second",
                  [Series("all time zones", list(range(48)), list(map(float, rates[:48]))),
                   Series(f"if all sat in {row.zones[0].name}", list(range(48)),
                          list(map(float, one[:48])))])
    return StudyResult(row.title, ("way to serve", "chips at the peak", "$ a seat and month",
                                   "share of the seat's price"), rows, lines, chart,
                       f"{row.source}; shape of the day: {row.shape_source}", points)


def _api(result: ScenarioResult, row: Any, workload: Any) -> float:
    prices = {p["name"]: p for p in result.scenario.api_prices}
    if row.api not in prices:
        raise unknown_name("API price of a study", row.api, prices)
    return api_usd(prices[row.api], workload)


def _row(name: str, plan: Plan | None, usd: float, seat: float) -> list[str]:
    chips = "–" if plan is None else f"{peak_and_trough(plan)[0]:,.0f} {peak_and_trough(plan)[2]}"
    return [name, chips, format_quantity(usd, "money"), f"{100 * usd / seat:.1f} %"]


def _findings(
    row: Any, rates: np.ndarray, one: np.ndarray, ways: list[tuple[str, Plan | None, float]],
    together: Plan,
) -> list[str]:
    first, public = ways[0], ways[-1]
    owned = min(ways[:-1], key=lambda w: w[2])
    plan = first[1]
    assert plan is not None
    lines = [
        f"Spread over {len(row.zones)} time zones the peak hour is "
        f"{rates.max() / rates.mean():.1f}x the mean, in one zone "
        f"{one.max() / one.mean():.1f}x: the fleet for the licensed model is "
        f"{peak_and_trough(plan)[0]:,.0f} chips at the peak and not "
        f"{peak_and_trough(together)[0]:,.0f}, and costs "
        f"{100 * (1 - plan.usd_per_month / together.usd_per_month):.0f} % less.",
        f"At the public price a seat costs {format_quantity(public[2], 'money')} a month "
        f"({100 * public[2] / row.seat_usd_per_month:.0f} % of the ${row.seat_usd_per_month:g} "
        f"that it sells for); the licensed model on an own fleet "
        f"{format_quantity(first[2], 'money')}.",
    ]
    for name, _, usd in ways[1:-1]:
        lines.append(f"{name}, the rest on the licensed model: {format_quantity(usd, 'money')} a "
                     f"seat and month, {100 * (1 - usd / first[2]):.0f} % less than all on the "
                     "licensed one.")
    lines.append(f"The cheapest of these is {owned[0]}; what the cheaper model's answers are worth "
                 "is not in the figures.")
    return lines
