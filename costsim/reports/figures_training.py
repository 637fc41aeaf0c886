"""Figures of training: days and cost against the fleet, predicted against published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.reports.style import colours, figure, save

if TYPE_CHECKING:
    from costsim.training.estimate import TrainingEstimate


def draw_training(found: Sequence[TrainingEstimate], title: str, folder: Path) -> list[Path]:
    """Draw days and cost against accelerators, and where the time of a step goes."""
    foot = "costsim; kernel times " + found[0].provenance
    with figure(title, foot, columns=2, height=5.2) as (drawn, axes):
        fleet = [float(e.accelerators) for e in found]
        axes[0].plot(fleet, [float(e.days) for e in found], "o-", color="#0072B2")
        axes[0].set_xscale("log")
        axes[0].set_xticks(fleet, [f"{n:,.0f}" for n in fleet])
        axes[0].minorticks_off()
        axes[0].set_ylim(bottom=0)
        axes[0].set_xlabel("accelerators")
        axes[0].set_ylabel("days")
        if all(e.usd for e in found):
            other = axes[0].twinx()
            rent = [float(e.usd) / 1e6 for e in found if e.usd]
            other.plot(fleet, rent, "s--", color="#D55E00")
            other.set_ylabel("rent [million $] (dashed)", color="#D55E00")
            other.set_ylim(0, 1.15 * max(rent))
            other.grid(visible=False)
        _stack(axes[1], found)
        return save(drawn, folder, "training")


def _stack(axis: Any, found: Sequence[TrainingEstimate]) -> None:
    names = [n for n in found[0].step.parts
             if max(float(e.step.parts[n] / e.step.seconds) for e in found) > 0.005]
    left = np.zeros(len(found))
    for name, tint in colours(names).items():
        share = np.array([100 * float(e.step.parts[name] / e.step.seconds) for e in found])
        axis.bar(range(len(found)), share, bottom=left, color=tint, label=name, width=0.7)
        left += share
    axis.set_xticks(range(len(found)), [f"{int(e.accelerators)}" for e in found])
    axis.set_xlabel("accelerators")
    axis.set_ylabel("share of a step [%]")
    axis.grid(axis="x", visible=False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def draw_published(data: dict[str, Any], folder: Path) -> list[Path]:
    """Draw predicted over published time by family; hollow marks do not count."""
    foot = ("costsim; hollow: layout not published (fastest that fits), or in the half that the "
            "unexplained share is fitted to")
    runs = [r for r in data["runs"] if r["quantity"] != "total_flop"]
    searched = "layout not published"
    families = list(dict.fromkeys(searched if "searched" in r["layout"] else r["family"]
                                  for r in runs))
    with figure("Training time, predicted over published", foot,
                height=1.6 + 0.42 * len(families)) as (drawn, axis):
        for r in runs:
            family = searched if "searched" in r["layout"] else r["family"]
            tint = "#0072B2" if r["counts"] else "#888888"
            axis.plot([1 + r["error"]], [families.index(family)], "o", ms=6, color=tint,
                      mfc=tint if r["counts"] else "none", alpha=0.7)
        axis.axvline(1.0, color="#333333", lw=1)
        axis.axvspan(0.85, 1.15, color="#999999", alpha=0.15, lw=0)
        axis.set_yticks(range(len(families)), families)
        axis.invert_yaxis()
        axis.set_xscale("log")
        ticks = (0.4, 0.5, 0.7, 0.85, 1.0, 1.15, 1.4)
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_xlabel("predicted time / published time (band: ±15 %)")
        return save(drawn, folder, "training_published")
