"""Tables of the life-cost study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group

from costsim.reports.tables import plain_table
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.planning.life_cost import LifePlan
    from costsim.planning.life_search import LifeResult, QualityPoint
    from costsim.planning.life_variants import VariantCost
    from costsim.sparsity.laws import Law

COLUMNS = ("design", "total", "tokens [90 %]", "MFU", "training", "$/query", "life", "binds",
           "replica", "cheaper than dense")
VARIANT_COLUMNS = ("variant", "perplexity", "tokens", "training", "$/query", "life [range]",
                   "binds", "quality from")


def plan_data(
    found: LifeResult, plan: LifePlan, law: Law, others: Sequence[VariantCost],
    front: Sequence[QualityPoint],
) -> dict[str, Any]:
    """Return the study as plain data."""
    return {
        "loss": plan.loss, "law": law.title, "law_provenance": law.provenance,
        "training_mfu_assumed": plan.mfu or None, "queries": plan.queries,
        "best": found.best.as_dict(), "limits": list(found.limits),
        "by_experts": {str(e): c.as_dict() for e, c in found.by_experts.items()},
        "break_even": {str(e): {**vars(v), "text": str(v)} for e, v in found.break_even.items()},
        "designs": len(found.everything), "variants": [v.as_dict() for v in others],
        "variants_of": (found.dense or found.best).design.name,
        "quality_front": [{"name": p.cost.design.name, "loss": p.loss,
                           "usd_per_query": p.cost.usd_per_query} for p in front if p.on_front],
    }


def _money(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return format_quantity(value, "money") if value < 1e6 else f"${value / 1e6:,.3g} million"


def _row(c: Mapping[str, Any], even: str) -> list[str]:
    low, high = (format_quantity(t, "count", 2) if math.isfinite(t) else "∞"
                 for t in c["tokens_interval"])
    return [c["name"], format_quantity(c["total"], "count"),
            f"{format_quantity(c['tokens'], 'count')} \\[{low} – {high}]",
            f"{100 * c['training_mfu']:.0f} %", _money(c["training_usd"]),
            _money(c["usd_per_query"]), _money(c["total_usd"]), c["binds"],
            f"{c['accelerators']} ({c['layout']})", even]


def _variant_row(v: Mapping[str, Any]) -> list[str]:
    low, high = v["total_usd_range"]
    ratio = f"x{math.exp(v['added_loss'][1]):.3f}" if v["added_loss"] else "unknown"
    spread = f"{_money(low)} – {_money(high) if math.isfinite(high) else 'out of reach'}"
    if not v["quality_known"]:
        spread = f"at least {_money(low)}"
    tokens = format_quantity(v["tokens"], "count") if math.isfinite(v["tokens"]) else "–"
    return [v["title"], ratio, tokens, _money(v["training_usd"]), _money(v["usd_per_query"]),
            f"{_money(v['total_usd'])} \\[{spread}]", v["binds"],
            f"unknown: {v['source']}" if v["provenance"] == "unknown" else v["source"]]


def plan_table(data: Mapping[str, Any]) -> Group:
    """Return the terminal's tables of the study."""
    even = data["break_even"]
    rows = [_row(c, even[e]["text"] if e in even else "–")
            for e, c in data["by_experts"].items()]
    assumed = data["training_mfu_assumed"]
    how = f"an assumed MFU of {100 * assumed:.0f} %" if assumed else "a predicted MFU"
    lines = [f"best over the life of {format_quantity(data['queries'], 'count')} queries: "
             f"{data['best']['name']}; loss {data['loss']:.3f} by {data['law']}; training at "
             f"{how}; {data['designs']} designs priced", *data["limits"]]
    warned = [c["warning"] for c in data["by_experts"].values() if c["warning"]]
    lines += [f"! {w}" for w in dict.fromkeys(part for w in warned for part in w.split("; "))]
    parts: list[Any] = [plain_table("Cheapest design for each number of experts", COLUMNS, rows),
                        *lines]
    if data["variants"]:
        title = (f"{data['variants_of']}, compressed after training; trained longer, so that the "
                 "quality is reached all the same")
        parts.append(plain_table(title, VARIANT_COLUMNS,
                                 [_variant_row(v) for v in data["variants"]]))
        if any(not v["quality_known"] for v in data["variants"]):
            parts.append("! where the loss of quality is unknown the cost is a lower bound")
    return Group(*parts)
