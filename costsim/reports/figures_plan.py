"""Figures of a plan: hour by hour, cost waterfall, tornado, break-even."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datetime import date

    from matplotlib.figure import Figure

    from costsim.economics.breakeven import Option
    from costsim.planning.plan import Plan

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")


def _figure(width: float = 9.0, height: float = 5.0, rows: int = 1, columns: int = 1) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def hours_figure(plan: Plan) -> Figure:
    """Return load and chips in service by hour, with what is committed."""
    figure, (top, bottom) = _figure(9.0, 6.0, rows=2)
    fleet = plan.problem.fleet
    hours = np.arange(max(fleet.demand.shape[1], 24))  # one rate holds all day
    for w, demand in enumerate(plan.problem.demands):
        top.step(hours, np.resize(fleet.demand[w], len(hours)), where="mid", label=demand.name,
                 color=_COLOURS[w % 8])  # fmt: skip
    top.set_ylabel("requests/s")
    top.set_title(rf"Fleet by hour: \${plan.usd_per_month:,.0f} a month, "
                  rf"\${1e3 * plan.usd_per_query:.4g} per 1,000 queries")  # fmt: skip
    base = np.zeros(len(hours))
    for at, (name, term, chips) in enumerate(_by_term(plan)):
        chips = np.resize(chips, len(hours))
        shade, hatch = _TERM_STYLE[term]
        bottom.bar(hours, chips, bottom=base, width=0.9, label=f"{name} {term}", hatch=hatch,
                   color=_lighter(_COLOURS[_place(plan, name) % 8], shade), edgecolor="white",
                   linewidth=0.0 if len(hours) > 48 else 0.3, zorder=2 + at)  # fmt: skip
        base = base + chips
    own = sum(plan.solution.committed.values())
    if own:
        bottom.axhline(own, color="black", linestyle="--", linewidth=1, zorder=9,
                       label=f"{own} committed")  # fmt: skip
    bottom.set_ylabel("accelerators in service")
    for axes, most in ((top, float(fleet.demand.max())), (bottom, max(base.max(), own))):
        axes.set_ylim(0, max(1e-9, 1.32 * most))
        axes.set_xlim(-0.7, len(hours) - 0.3)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(loc="upper left", fontsize=9, ncols=4)
        if len(hours) == 168:
            axes.set_xticks(np.arange(7) * 24 + 12, _DAYS)
            axes.set_xticks(np.arange(8) * 24 - 0.5, minor=True)
            axes.tick_params(axis="x", which="major", length=0)
            axes.tick_params(axis="x", which="minor", length=6)
        else:
            axes.set_xticks(np.arange(0, len(hours), 3))
    bottom.set_xlabel("day of the week" if len(hours) == 168 else "hour of the day")
    return figure


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TERM_STYLE = {"committed": (0.0, ""), "on demand": (0.45, ""), "spot": (0.7, "//")}


def _place(plan: Plan, name: str) -> int:
    return [o.name for o in plan.problem.fleet.offers].index(name)


def _lighter(colour: str, share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(v + share * (1.0 - v) for v in to_rgb(colour))


def _by_term(plan: Plan) -> list[tuple[str, str, np.ndarray]]:
    """Return chips in service by hardware and how they are paid for, by hour."""
    fleet, found, rows = plan.problem.fleet, plan.solution, []
    for g, offer in enumerate(fleet.offers):
        mine = [c for c, p in enumerate(fleet.pools) if p.offer == g]
        chips = np.array([fleet.pools[c].chips for c in mine], float)
        if not mine:
            continue
        paid, spot = chips @ found.replicas[mine], chips @ found.spot[mine]
        own = sum(n for (of, _), n in found.committed.items() if of == g)
        parts = (("committed", np.minimum(paid, own)), ("on demand", np.maximum(paid - own, 0.0)),
                 ("spot", spot))
        rows += [(offer.name, term, values) for term, values in parts if values.any()]
    return rows


_PART_NAMES = {
    "input": "input tokens", "cached_input": "cached tokens", "output": "output tokens",
    "idle": "idle headroom", "failures": "interruptions", "cold_starts": "cold starts",
}  # fmt: skip


def waterfall_figure(bill: Mapping[str, Any]) -> Figure:
    """Return what the month's bill is for, part on part, up to the bill."""
    figure, axes = _figure(8.0, 4.5)
    parts = [(name, float(usd)) for name, usd in bill.items() if float(usd) > 0]
    base = 0.0
    for at, (_, usd) in enumerate(parts):
        axes.bar(at, usd, bottom=base, color=_COLOURS[at % 8], width=0.7)
        axes.text(at, base + usd, rf"\${usd:,.0f}", ha="center", va="bottom", fontsize=9)
        base += usd
    axes.bar(len(parts), base, color="#444444", width=0.7)
    axes.text(len(parts), base, rf"\${base:,.0f}", ha="center", va="bottom", fontsize=9)
    names = [_PART_NAMES.get(name, name) for name, _ in parts]
    axes.set_xticks(range(len(parts) + 1), [*names, "bill"])
    axes.set_ylabel(r"\$ a month")
    axes.set_ylim(0, 1.12 * max(base, 1e-9))
    axes.set_title("What the bill is for")
    return figure


def tornado_figure(
    indices: Mapping[str, tuple[float, float]], quantity: str = "$ per query"
) -> Figure:
    """Return Sobol indices as a tornado: what to measure next.

    Args:
        indices: first-order and total index by input.
        quantity: whose variance it is.
    """
    figure, axes = _figure(8.0, 0.55 * len(indices) + 1.6)
    names = sorted(indices, key=lambda n: indices[n][1])
    places = np.arange(len(names))
    axes.barh(places + 0.2, [indices[n][1] for n in names], 0.38, color=_COLOURS[0],
              label="with interactions (total)")  # fmt: skip
    axes.barh(places - 0.2, [max(indices[n][0], 0.0) for n in names], 0.38, color=_COLOURS[1],
              label="alone (first order)")  # fmt: skip
    axes.set_yticks(places, names)
    quoted = quantity.replace("$", r"\$")
    axes.set_xlabel(f"share of the variance of {quoted} (Sobol index)")
    axes.set_xlim(0, 1)
    axes.legend(loc="lower right", fontsize=9)
    axes.set_title("What to measure next")
    return figure


def break_even_figure(
    options: Sequence[Option], queries_per_hour: float, utilisation: float, start: date,
    years: float = 4.0, utilisations: Mapping[str, float] | None = None,
    dates: Mapping[str, date | None] | None = None,
) -> Figure:
    """Return cost per query against utilisation, and $ spent against time.

    Args:
        options: own first, rent, API.
        queries_per_hour: at full utilisation.
        utilisation: mean, of the right-hand panel.
        start: of spending.
        years: of the right-hand panel.
        utilisations, dates: break-even with the first option, by the name of the other; marked.
    """
    from datetime import timedelta

    figure, (left, right) = _figure(11.0, 4.8, columns=2)
    use = np.linspace(0.02, 1.0, 200)
    time = np.linspace(0.0, years, 200)
    days = [start + timedelta(days=float(t) * 365.25) for t in time]
    for at, option in enumerate(options):
        colour = _COLOURS[at % 8]
        even = (utilisations or {}).get(option.name, np.nan)
        day, crosses = (dates or {}).get(option.name), bool(0 < even <= 1)
        left.plot(100 * use, 1e3 * option.usd_per_hour(use) / (queries_per_hour * use),
                  label=option.name + (f": even at {100 * even:.0f} %" if crosses else ""),
                  color=colour)  # fmt: skip
        right.plot(days, np.asarray(option.spent_usd(time, utilisation)) / 1e3, color=colour,
                   label=option.name + (f": even in {day:%B %Y}" if day else ""))  # fmt: skip
        if crosses:
            usd = 1e3 * float(option.usd_per_hour(even)) / (queries_per_hour * even)
            left.plot([100 * even], [usd], "o", color=colour, markeredgecolor="black", zorder=5)
        if day is not None and day <= days[-1]:
            spent = float(option.spent_usd((day - start).days / 365.25, utilisation)) / 1e3
            right.plot([day], [spent], "o", color=colour, markeredgecolor="black", zorder=5)
    left.set_yscale("log")
    left.set_xlabel("utilisation [%]")
    left.set_ylabel(r"\$ per 1,000 queries")
    left.axvline(100 * utilisation, color="grey", linestyle=":", linewidth=1,
                 label="this load")  # fmt: skip
    left.set_title("Cost of a query against utilisation")
    right.set_ylabel(r"\$ thousand spent")
    right.set_title(f"Spent since the start, at {100 * utilisation:.0f} % utilisation")
    right.tick_params(axis="x", rotation=30)
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.legend(fontsize=8, loc="upper right" if axes is left else "upper left")
        axes.grid(alpha=0.3)
    return figure


def plan_figures(plan: Plan) -> dict[str, Figure]:
    """Return every figure of a plan by name."""
    from datetime import date

    from costsim.planning.plan_breakeven import plan_break_even

    figures = {"hours": hours_figure(plan), "waterfall": waterfall_figure(plan.bill)}
    even = plan_break_even(plan)
    if len(even.options) > 1:
        figures["break_even"] = break_even_figure(
            even.options, even.queries_per_hour, even.utilisation, date.today(),
            years=float(even.life_years), utilisations=even.utilisations, dates=even.dates,
        )  # fmt: skip
    if plan.uncertainty is not None and plan.uncertainty.sobol:
        figures["tornado"] = tornado_figure(plan.uncertainty.sobol)
    return figures
