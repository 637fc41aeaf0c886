"""Figures of a simulation: latency distributions and timelines."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costsim.reports.style import figure, save
from costsim.reports.tables_simulation import heading

if TYPE_CHECKING:
    from costsim.planning.simulate import Simulated


def draw_simulation(found: Simulated, folder: Path) -> list[Path]:
    """Draw the distributions of TTFT, TPOT and E2E latency with their p50, p90 and p99."""
    kernels = dict.fromkeys(p.deployment.calibration.provenance for p in found.case.parts)
    foot = f"costsim, simulated; kernel times {'; '.join(kernels)}"
    with figure(_title(found), foot, columns=3) as (drawn, axes):
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


def _title(found: Simulated) -> str:
    return found.case.title or textwrap.shorten(heading(found), 120, placeholder=" …")


def draw_timelines(found: Simulated, folder: Path) -> list[Path]:
    """Draw queue, batch, KV cache, replicas, power and $ per hour over the simulated time."""
    lines = found.result.timelines
    if len(lines.get("time_s", ())) < 2:
        return []
    hours = lines["time_s"][-1] > 3 * 3600
    at = lines["time_s"] / (3600 if hours else 1)
    panels = (
        ("waiting requests", lines["queue"]), ("running requests", lines["batch"]),
        ("KV cache in use [%]", 100 * lines["kv_occupancy"]), ("replicas", lines["replicas"]),
        ("power [kW]", lines["power_w"] / 1e3), ("cost [$/h]", found.bill.usd_per_hour),
    )  # fmt: skip
    with figure(_title(found), "costsim, simulated", columns=3, rows=2) as (drawn, axes):
        for axis, (text, values) in zip(axes, panels, strict=True):
            axis.plot(at, values, color="#0072B2", lw=1.0, drawstyle="steps-post")
            axis.set_ylabel(text)
            axis.set_ylim(0, max(1.05 * float(np.max(values)), 1e-9))
            axis.set_xlabel(f"simulated time [{'h' if hours else 's'}]")
        return save(drawn, folder, "timelines")
