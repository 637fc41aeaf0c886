"""Figures of what-ifs and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costsim.reports.style import colours, dollars, figure, save

if TYPE_CHECKING:
    from costsim.planning.compare import Comparison
    from costsim.planning.whatif import WhatIf


def draw_whatif(found: WhatIf, folder: Path, name: str) -> list[Path]:
    """Draw cost per query and TPOT against the varied field, with 90 % intervals."""
    good = [o for o in found.outcomes if o.estimate is not None]
    if not good:
        return []
    d = found.base.deployment
    title = f"{found.variation.text} · {d.model.title} on {int(d.accelerators)}x {d.hardware.name}"
    foot = f"costsim; shaded: 90 % interval; kernel times {d.calibration.provenance}"
    with figure(title, foot, columns=2) as (drawn, axes):
        numbers = [float(o.value) for o in good if not isinstance(o.value, str)]
        numeric = len(numbers) == len(good)
        x = numbers if numeric else [float(i) for i in range(len(good))]
        panels = (("usd_per_query", "$ per query", 1.0), ("tpot_s", "TPOT [ms]", 1e3))
        for axis, (field, text, scale) in zip(axes, panels, strict=True):
            values = [getattr(o.estimate, field) for o in good]
            bounds = np.array([v.interval() for v in values]) * scale
            axis.fill_between(x, bounds[:, 0], bounds[:, 1], color="#0072B2", alpha=0.13, lw=0)
            axis.plot(x, [float(v) * scale for v in values], "o-", color="#0072B2")
            base = float(getattr(found.base, field)) * scale
            axis.axhline(base, color="#888888", lw=1, ls="--")
            axis.annotate("now", (0.995, base), xycoords=("axes fraction", "data"), ha="right",
                          va="bottom", fontsize=8, color="#666666")
            suffix = " (times the present value)" if found.variation.relative else ""
            axis.set_xlabel(f"{found.variation.part}.{found.variation.field}{suffix}")
            axis.set_ylabel(text)
            if numeric and min(x) > 0 and max(x) / min(x) > 3:
                axis.set_xscale("log", base=2)
            axis.set_xticks(x, [o.label for o in good], rotation=30 if len(good) > 6 else 0)
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
        axes[0].yaxis.set_major_formatter(dollars)
        return save(drawn, folder, name)


def draw_comparison(found: Comparison, folder: Path, name: str = "compare") -> list[Path]:
    """Draw cost per query against load of every deployment, crossovers marked."""
    foot = "costsim; whole replicas are paid for, whether busy or not"
    with figure("Cost per query against load", foot) as (drawn, axis):
        tint = colours(list(found.names))
        for curve in found.curves:
            axis.loglog(curve.requests_per_s, curve.usd_per_query, lw=1.8, color=tint[curve.name],
                        label=f"{curve.name} ({curve.accelerators} per replica)")
        for cross in found.crossovers:
            axis.axvline(cross.requests_per_s, color="#999999", lw=0.9, ls=":")
            axis.annotate(f"{cross.requests_per_s:.3g}/s", (cross.requests_per_s, 0.02),
                          xycoords=("data", "axes fraction"), fontsize=8, rotation=90,
                          ha="right", color="#666666")
        axis.set_xlabel("requests per second")
        axis.set_ylabel("$ per query")
        axis.yaxis.set_major_formatter(dollars)
        axis.legend()
        return save(drawn, folder, name)
