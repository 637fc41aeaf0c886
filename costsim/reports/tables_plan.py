"""Tables of a plan for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from costsim.planning.commands_out import broken_line
from costsim.planning.plan_breakeven import plan_break_even
from costsim.planning.plan_energy import plan_energy
from costsim.planning.plan_json import pool_rows
from costsim.planning.plan_worth import spend_by_offer

if TYPE_CHECKING:
    from costsim.planning.plan import Plan


def plan_table(plan: Plan) -> Any:
    """Return all tables of a plan, one under the other."""
    parts: list[Any] = [_pools(plan), _money(plan)]
    if plan.held:
        parts.append(_held(plan))
    parts.append(_break_even(plan))
    if plan.runners_up:
        parts.append(_runners_up(plan))
    if plan.worth is not None:
        parts.append(_worth(plan))
    if plan.uncertainty is not None:
        parts.append(_uncertainty(plan))
    parts += [_command(line) for row in pool_rows(plan) for line in row["commands"]["vllm"]]
    parts += [f"note: {note}" for note in plan.notes]
    return Group(*parts)


def _command(line: str) -> Text:
    return Text("\n".join(broken_line(line)), style="dim", no_wrap=True)


def _pools(plan: Plan) -> Table:
    rows = pool_rows(plan)
    several = len(plan.problem.demands) > 1
    table = Table(title="Plan", title_justify="left")
    for name in ("replica", "chips", "req/s", "TTFT", "TPOT", "limit", "replicas"):
        table.add_column(name, justify="left" if name == "replica" else "right", overflow="fold",
                         no_wrap=name not in ("replica", "replicas"))  # fmt: skip
    for row in rows:
        low, high, spot = row["min_replicas"], row["max_replicas"], max(row["spot_by_hour"])
        count = str(low) if low == high else f"{low} to {high}"
        count += f", ≤ {spot} spot" if spot else ""
        made_for = f"{', '.join(row['serves'])}: " if several else ""
        table.add_row(
            made_for + row["pool"], str(row["chips_per_replica"]),
            f"{row['requests_per_s_per_replica']:.3g}", f"{1e3 * row['ttft_s']:.0f} ms",
            f"{1e3 * row['tpot_s']:.1f} ms", row["bottleneck"], count,
        )  # fmt: skip
    return table


def _money(plan: Plan) -> Table:
    found = plan.solution
    table = Table(title="Cost", title_justify="left", show_header=False)
    table.add_row("a month", f"${plan.usd_per_month:,.2f}")
    for name, usd in plan.usd_by_demand().items():
        table.add_row(f"per 1,000 queries of {name}", f"${1e3 * usd:.4g}")
    for name, terms in spend_by_offer(plan.problem.fleet, found).items():
        for term, usd in terms.items():
            chips = [n for (g, t), n in found.committed.items()
                     if t == term and plan.problem.fleet.offers[g].name == name]  # fmt: skip
            count = f"{chips[0]} chip{'s' if chips[0] > 1 else ''}, " if chips else ""
            table.add_row(f"{name} {term}", f"{count}${usd:,.2f}")
    for name, part in plan.bill.items():
        if part:
            table.add_row(f"for {name.replace('_', ' ')}", f"${part:,.2f}")
    energy = plan_energy(plan)
    table.add_row(f"energy, {energy.region}, PUE {energy.pue:g}",
                  f"{energy.kwh:,.0f} kWh, {energy.j_per_query:,.0f} J per query")
    table.add_row("carbon", f"{energy.kg_co2:,.0f} kg CO2e")
    table.add_row("gap to the solver's bound", f"{100 * found.gap:.2f} %")
    table.add_row("gap to the LP bound (fractions of replicas)", f"{100 * found.lp_gap:.1f} %")
    table.add_row("operating points priced", f"{plan.problem.considered:,}")
    return table


def _held(plan: Plan) -> Table:
    sure = f"{100 * plan.options.confidence:g} %"
    table = Table(title=f"Simulated (round {plan.rounds})", title_justify="left")
    for name in ("hour", "demand", "measure", "target", "found", f"below, {sure} sure", "holds"):
        table.add_column(name, justify="left" if name in ("demand", "measure") else "right")
    for row in plan.held:
        table.add_row(str(row.hour), row.demand, row.measure, _ms(row.target_s), _ms(row.value_s),
                      _ms(row.upper_s), "yes" if row.held else "NO")  # fmt: skip
    return table


def _runners_up(plan: Plan) -> Table:
    table = Table(title="Runners-up, alone", title_justify="left")
    for name in ("hardware", "best replica", "a month", "why it lost"):
        table.add_column(name, justify="right" if name == "a month" else "left")
    for row in plan.runners_up:
        usd = "" if math.isnan(row.usd_per_month) else f"${row.usd_per_month:,.0f}"
        table.add_row(row.hardware, row.name, usd, row.why)
    return table


def _break_even(plan: Plan) -> Table:
    even = plan_break_even(plan)
    table = Table(title=f"Own {even.hardware} ({even.chips} chips, {100 * even.utilisation:.0f} % "
                        "used) against", title_justify="left")  # fmt: skip
    for name in ("option", "per 1,000 queries", "owning is cheaper from", "and has paid back by"):
        table.add_column(name, justify="left" if name == "option" else "right")
    own = even.options[0]
    queries = even.queries_per_hour * even.utilisation
    for option in even.options:
        usd = 1e3 * float(option.usd_per_hour(even.utilisation)) / queries
        use, day = even.utilisations.get(option.name), even.dates.get(option.name)
        if use is None or option is own:
            table.add_row(option.name, f"${usd:.4g}", "", "")
            continue
        crossing = f"{100 * use:.0f} % use" if not math.isnan(use) else "no use" if (
            own.usd_per_hour(1.0) > option.usd_per_hour(1.0)) else "any use"  # fmt: skip
        when = day.isoformat() if day else "not in its life"
        table.add_row(option.name, f"${usd:.4g}", crossing, when)
    return table


def _worth(plan: Plan) -> Table:
    worth = plan.worth
    assert worth is not None
    table = Table(title="What a little more saves", title_justify="left", show_header=False)
    for name, usd in worth.chip_usd.items():
        if usd > 0:
            table.add_row(f"one more {name}", f"${usd:,.2f} a month")
    table.add_row("10 ms of TTFT", f"${worth.ttft_10ms_usd:,.2f} a month")
    table.add_row("1 ms of TPOT", f"${worth.tpot_1ms_usd:,.2f} a month")
    for name, usd in worth.price_1_percent_usd.items():
        table.add_row(f"1 % off the price of {name}", f"${usd:,.2f} a month")
    if worth.power_usd_per_kw > 0:
        table.add_row("one more kW", f"${worth.power_usd_per_kw:,.2f} a month")
    return table


def _uncertainty(plan: Plan) -> Table:
    table = Table(title="How sure", title_justify="left", show_header=False)
    for name, text in plan.uncertainty.lines():
        table.add_row(name, text)
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms" if math.isfinite(seconds) else "none"
