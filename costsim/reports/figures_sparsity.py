"""Figures of the life-cost study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costsim.reports.style import colours, dollars, figure, save

if TYPE_CHECKING:
    from costsim.planning.life_cost import LifePlan
    from costsim.planning.life_search import LifeResult, QualityPoint
    from costsim.sparsity.laws import Law


def draw_life_cost(found: LifeResult, plan: LifePlan, folder: Path) -> list[Path]:
    """Draw life cost against queries served, and training cost against $ per query."""
    how = f"an assumed MFU of {100 * plan.mfu:.0f} %" if plan.mfu else "a predicted MFU"
    foot = ("costsim; designs of equal loss by a published law; hypothetical models; training at "
            f"{how}")
    with figure("Designs of equal quality over their life", foot, columns=2, height=5.6) as (
            drawn, axes):
        names = {e: ("dense" if e == 1 else f"{e}x experts") for e in found.by_experts}
        tint = colours(list(names.values()))
        queries = np.logspace(np.log10(plan.queries) - 3, np.log10(plan.queries) + 2, 120)
        for experts, cost in found.by_experts.items():
            total = cost.training_usd + cost.usd_per_query * queries
            axes[0].loglog(queries, total, color=tint[names[experts]], lw=1.8,
                           label=names[experts])
        axes[0].axvline(plan.queries, color="#999999", lw=1, ls="--")
        axes[0].set_xlabel("queries served over the life")
        axes[0].set_ylabel("training and serving")
        axes[0].yaxis.set_major_formatter(dollars)
        axes[0].legend()
        for experts, name in names.items():
            own = [c for c in found.everything
                   if c.design.experts == experts and math.isfinite(c.total_usd)]
            axes[1].loglog([c.usd_per_query for c in own], [c.training_usd for c in own], "o",
                           color=tint[name], ms=4, alpha=0.6)
            best = found.by_experts[experts]
            axes[1].loglog([best.usd_per_query], [best.training_usd], "*", color=tint[name],
                           ms=14, mec="#333333", mew=0.6)
        axes[1].set_xlabel("$ per query (stars: cheapest over the life)")
        axes[1].set_ylabel("training")
        axes[1].xaxis.set_major_formatter(dollars)
        axes[1].yaxis.set_major_formatter(dollars)
        return save(drawn, folder, "life_cost")


def draw_quality(
    front: Sequence[QualityPoint], plan: LifePlan, law: Law, budget_usd: float, folder: Path
) -> list[Path]:
    """Draw loss against $ per query at one training budget, the designs that none beats joined."""
    foot = (f"costsim; {law.title}; every design trained with ${budget_usd / 1e6:,.2f} million; "
            "hypothetical models")
    with figure("Quality against cost to serve, at an equal training budget", foot) as (
            drawn, axis):
        experts = sorted({p.cost.design.experts for p in front})
        tint = colours([str(e) for e in experts])
        for e in experts:
            own = [p for p in front if p.cost.design.experts == e]
            axis.semilogx([p.cost.usd_per_query for p in own], [p.loss for p in own], "o", ms=5,
                          color=tint[str(e)], label="dense" if e == 1 else f"{e}x experts",
                          alpha=0.75)
        best = [p for p in front if p.on_front]
        axis.step([p.cost.usd_per_query for p in best], [p.loss for p in best], where="pre",
                  color="#333333", lw=1.2, label="not beaten in both")
        axis.set_xlim(right=300 * min(p.cost.usd_per_query for p in front))
        axis.axhline(plan.loss, color="#999999", lw=1, ls="--", label="quality asked for")
        axis.set_xlabel("$ per query")
        axis.set_ylabel("loss [nats per token] (lower is better)")
        axis.xaxis.set_major_formatter(dollars)
        axis.legend(ncol=2)
        return save(drawn, folder, "quality_front")
