"""What training each model of a scenario costs."""

from __future__ import annotations

from typing import Any

from costsim.economics.prices import TERMS
from costsim.errors import DoesNotFitError
from costsim.planning.results import ScenarioResult
from costsim.planning.studies.lookup import hardware_entry, marked, model_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.training.plan import TrainingPlan
from costsim.training.search import search_layout
from costsim.units import format_quantity, parse_quantity


def _price(text: str) -> str | tuple[float, float, float]:
    """Return a term of the rent, or one price as low, central and high."""
    if text in TERMS:
        return text
    value = float(parse_quantity(text, "price_per_hour", where="price of a study"))
    return value, value, value


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return cost, days and MFU of training, by the fastest layout found."""
    hardware = hardware_entry(result, row.hardware).hardware
    plan = TrainingPlan(row.tokens, row.batch_tokens, row.sequence)
    rows, found, lines = [], [], []
    for key in row.models:
        entry = model_entry(result, key)
        try:
            e = search_layout(entry.model, hardware, row.accelerators, plan,
                              price=_price(row.price))
        except DoesNotFitError as error:
            lines.append(f"{entry.title} cannot be trained there: {error}.")
            continue
        assert e.usd is not None
        low, high = e.usd.interval()
        found.append((entry, e))
        rows.append([marked(entry), str(e.plan.layout), f"{100 * float(e.mfu):.0f} %",
                     f"{float(e.days):,.0f}", f"{float(e.gpu_hours) / 1e6:,.2f} M",
                     f"${e.usd.value / 1e6:,.1f} M [{low / 1e6:,.1f} – {high / 1e6:,.1f}]"])
    if found:
        least = min(found, key=lambda f: f[1].usd.value if f[1].usd else 0.0)
        most = max(found, key=lambda f: f[1].usd.value if f[1].usd else 0.0)
        assert least[1].usd and most[1].usd
        lines.insert(0, f"Trained on {format_quantity(row.tokens, 'count')} tokens on "
                     f"{row.accelerators:,} {row.hardware}, {least[0].title} costs least "
                     f"(${least[1].usd.value / 1e6:,.1f} million, MFU "
                     f"{100 * float(least[1].mfu):.0f} %) and {most[0].title} "
                     f"{most[1].usd.value / least[1].usd.value:.1f}x that (MFU "
                     f"{100 * float(most[1].mfu):.0f} %).")
    chart = Chart("bar", "", "training [million $]", [Series(
        row.hardware, [e.title for e, _ in found],
        [t.usd.value / 1e6 for _, t in found if t.usd])])
    return StudyResult(row.title, ("model", "layout (fastest found)", "MFU", "days", "GPU hours",
                                   "rent [90 %]"), rows, lines, chart, row.source)
