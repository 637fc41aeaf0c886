"""Figures of a simulation: latency distributions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costsim.reports.style import figure, save

if TYPE_CHECKING:
    from costsim.planning.simulate import Simulated


def draw_simulation(found: Simulated, folder: Path) -> list[Path]:
    """Draw the distributions of TTFT, TPOT and E2E latency with their p50, p90 and p99."""
    d = found.deployment
    title = f"{d.model.title} on {found.replicas} x {int(d.accelerators)} {d.hardware.name}"
    foot = f"costsim, simulated; kernel times {d.calibration.provenance}"
    with figure(title, foot, columns=3) as (drawn, axes):
        panels = (("ttft_s", "time to first token [s]", 1.0),
                  ("tpot_s", "time per output token [ms]", 1e3),
                  ("e2e_s", "end-to-end latency [s]", 1.0))
        for axis, (name, text, scale) in zip(axes, panels, strict=True):
            values = np.sort(found.result.latency(name))
            values = values[np.isfinite(values)] * scale
            if not len(values):
                continue
            axis.plot(values, np.linspace(0, 100, len(values)), color="#0072B2", lw=1.8)
            for share in (50, 90, 99):
                x = float(np.percentile(values, share))
                axis.plot([x], [share], "o", color="#D55E00", ms=4)
                axis.annotate(f"p{share} {x:.3g}", (x, share), textcoords="offset points",
                              xytext=(6, -9), fontsize=8)
            axis.set_xlabel(text)
            axis.set_ylim(0, 102)
        axes[0].set_ylabel("share of requests [%]")
        return save(drawn, folder, "latency")
