"""Tables and figures of predicted against measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group

from costsim.reports.style import colours, figure, save
from costsim.reports.tables import plain_table
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.validation.silicon import Prediction
    from costsim.validation.silicon_points import LeftOut


def percent(value: float | None, signed: bool = False) -> str:
    """Return a share as per cent, a dash for what is not there."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{100 * value:+.1f} %" if signed else f"{100 * value:.1f} %"


def silicon_data(
    found: Sequence[Prediction], missed: Sequence[LeftOut],
    figures: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return all figures of the comparison as plain data."""
    from costsim.validation.silicon import CLASSES, by_class, kendall, summaries
    from costsim.validation.silicon_comparison import explain

    reasons: dict[str, int] = {}
    for row in missed:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    worst = sorted(found, key=lambda p: -abs(p.error_tpot))[:10]
    return {
        "rows": len(found) + len(missed), "predicted": len(found), "left_out": reasons,
        "kendall_tau": kendall(found), "fitted": {k: dict(v) for k, v in figures.items()},
        "all": {q: asdict(s) for q, s in summaries(found).items()},
        "classes": {name: {k: {q: asdict(s) for q, s in v.items()}
                           for k, v in by_class(found, key).items()}
                    for name, key in CLASSES.items()},
        "worst_tpot": [{"id": p.point.id, "predicted_s": p.tpot_s, "measured_s": p.point.tpot_s,
                        "explanation": explain(p)} for p in worst],
    }


def silicon_table(data: Mapping[str, Any]) -> Group:
    """Return the terminal's tables of the comparison."""
    head = (f"{data['predicted']} of {data['rows']} rows predicted; median Kendall τ of throughput "
            f"within model, accelerator and length {data['kendall_tau']:.2f}")
    rows = []
    for name, classes in data["classes"].items():
        for key, summary in classes.items():
            rows.append([name, key, *_cells(summary)])
    columns = ("class", "", "points", "TPOT median", "bias", "p90", "in 90 %", "TTFT median",
               "bias", "in 90 %", "tok/s/accel median", "in 90 %")
    parts: list[Any] = [head, plain_table("Predicted against measured, rows never fitted on",
                                          columns, [["all", "", *_cells(data["all"])], *rows],
                                          left=2)]
    parts += [f"left out, {n} rows: {reason}" for reason, n in data["left_out"].items()]
    if data["fitted"]:
        parts.append(plain_table(
            "Fitted to the even rows", ("engine", "figure", "value"),
            [[e, k, f"{v:.4g}"] for e, fs in data["fitted"].items() for k, v in fs.items()],
            left=2))
    return Group(*parts)


def _cells(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    t, f, r = summary["tpot"], summary["ttft"], summary["throughput"]
    return [str(t["points"]), percent(t["median"]), percent(t["bias"], True), percent(t["p90"]),
            percent(t["inside"]), percent(f["median"]), percent(f["bias"], True),
            percent(f["inside"]), percent(r["median"]), percent(r["inside"])]


def draw_silicon(found: Sequence[Prediction], folder: Path) -> list[Path]:
    """Draw predicted against measured TPOT and TTFT, with the 90 % band of the median row."""
    title = "Measured serving points never fitted on"
    foot = "costsim; points: aiconfigurator-core 0.12.0, systems/silicon_sample.csv, odd rows"
    with figure(title, foot, columns=2, height=5.6) as (drawn, axes):
        names = sorted({p.point.engine for p in found})
        tint = colours(names)
        for axis, what in zip(axes, ("tpot", "ttft"), strict=True):
            for name in names:
                own = [p for p in found if p.point.engine == name]
                x = np.array([getattr(p.point, f"{what}_s") for p in own]) * 1e3
                y = np.array([getattr(p, f"{what}_s") for p in own]) * 1e3
                solid = np.array([not p.point.assumed for p in own])
                axis.scatter(x[solid], y[solid], s=7, alpha=0.45, color=tint[name], label=name)
                axis.scatter(x[~solid], y[~solid], s=7, alpha=0.25, facecolors="none",
                             edgecolors=tint[name])
            low, high = axis.get_xlim()
            low = max(low, 1.0)
            spread = np.exp(1.645 * float(np.median([getattr(p, f"log_error_{what}")
                                                     for p in found])))
            line = np.array([low, high])
            axis.fill_between(line, line / spread, line * spread, color="#999999", alpha=0.15,
                              lw=0, label="90 % interval (median row)")
            axis.plot(line, line, color="#333333", lw=1)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel(f"measured {what.upper()} [ms]")
            axis.set_ylabel(f"predicted {what.upper()} [ms]")
        axes[0].legend(loc="upper left", markerscale=2)
        return save(drawn, folder, "silicon")


def kernel_rows(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the errors of kernels as plain data."""
    rows = []
    for k in found:
        target = k.target
        rows.append({"operator": k.operator, "variant": k.variant, "engine": k.engine,
                     "rows": len(k.measured_s), "median": k.median, "p90": k.p90, "bias": k.bias,
                     "coverage": k.coverage, "target_median": target[0] if target else None,
                     "target_p90": target[1] if target else None})
    return rows


def kernels_table(hardware: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the terminal's table of kernel errors."""
    cells = [[r["operator"], r["variant"], r["engine"], str(r["rows"]), percent(r["median"]),
              percent(r["p90"]), percent(r["bias"], True), percent(r["coverage"]),
              percent(r["target_median"])] for r in rows]
    columns = ("operator", "kernel", "engine", "rows", "median", "p90", "bias", "in 90 %",
               "aim (median)")
    return plain_table(f"Kernels of {hardware}: predicted against the table", columns, cells,
                       left=3)


def draw_kernels(found: Sequence[Any], hardware: str, folder: Path) -> list[Path]:
    """Draw predicted against measured kernel times."""
    foot = f"costsim; every row of the table against the calibration of {hardware}"
    with figure(f"Kernels of {hardware}", foot, height=6.0) as (drawn, axis):
        names = sorted({k.operator for k in found})
        tint = colours(names)
        for name in names:
            own = [k for k in found if k.operator == name]
            x = np.concatenate([k.measured_s for k in own]) * 1e6
            y = np.concatenate([k.predicted_s for k in own]) * 1e6
            step = max(len(x) // 3000, 1)
            axis.scatter(x[::step], y[::step], s=4, alpha=0.3, color=tint[name], label=name)
        line = np.array(axis.get_xlim())
        line[0] = max(line[0], 0.5)
        axis.plot(line, line, color="#333333", lw=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("measured [µs]")
        axis.set_ylabel("predicted [µs]")
        axis.legend(markerscale=3)
        return save(drawn, folder, f"kernels_{hardware}")


def serving_table(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Return the terminal's table of replayed servers."""
    rows = []
    for name, found in data.items():
        rows += [[name, str(r["figure"]), str(r["statistic"]),
                  format_quantity(float(r["measured"]), "time"),
                  format_quantity(float(r["predicted"]), "time"), percent(r["error"], True),
                  "" if r["llmservingsim_error"] is None
                  else percent(r["llmservingsim_error"], True)]
                 for r in found]
    columns = ("run", "figure", "", "measured", "predicted", "error", "LLMServingSim")
    return plain_table("Replayed servers", columns, rows, left=3)
