"""Figures of a calibration: measured against predicted, efficiency surface, residuals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.reports.style import PALETTE, figure, save

if TYPE_CHECKING:
    from costsim.kernels.calibrate import CalibrationResult

# What the efficiency is drawn against: (horizontal, colour).
_AXES: dict[str, tuple[str, str]] = {
    "gemm": ("m", "weights n·k"), "moe": ("tokens", "touched"),
    "attention_prefill": ("new_tokens", "batch"), "attention_decode": ("context", "batch"),
    "elementwise": ("bytes", ""),
}
_LABELS = {"touched": "experts touched"}


def draw_calibration(result: CalibrationResult, folder: Path) -> list[Path]:
    """Draw one figure for each operator and data type; returns the files."""
    from costsim.kernels.calibrate import scatter

    files: list[Path] = []
    for (operator, variant), points in sorted(scatter(result).items()):
        files += _one(result, operator, variant, points, folder)
    return files


def _one(
    result: CalibrationResult, operator: str, variant: str, points: Mapping[str, Any],
    folder: Path,
) -> list[Path]:
    row = next(r for r in result.rows() if (r["operator"], r["variant"]) == (operator, variant))
    held = "" if row["median"] is None else (
        f"; held-out error: median {100 * row['median']:.1f} %, p90 {100 * row['p90']:.1f} %")
    foot = f"{row['rows']} measurements on {result.hardware.title}{held}"
    if result.noise:
        foot += f"; {result.noise.sentence().split(':')[0]}"
    kernel = f"{operator} {variant.replace(':', ' x ')}".replace("_", " ").strip()
    title = f"{kernel} · {result.calibration.name}"
    with figure(title, foot, columns=3, height=4.8) as (drawn, axes):
        _measured_against_predicted(axes[0], points)
        _efficiency(drawn, axes[1], result, operator, points)
        _residuals(axes[2], points)
        name = "_".join(x for x in (operator, variant.replace(":", "_").replace("/", "_")) if x)
        return save(drawn, folder, f"fit_{name}")


def _measured_against_predicted(axis: Any, points: Mapping[str, Any]) -> None:
    measured, predicted = points["measured_s"] * 1e3, points["predicted_s"] * 1e3
    ends = [min(measured.min(), predicted.min()) * 0.7, max(measured.max(), predicted.max()) * 1.4]
    axis.fill_between(ends, np.array(ends) / 1.2, np.array(ends) * 1.2, color="#cccccc",
                      alpha=0.6, lw=0, label="±20 %")
    axis.plot(ends, ends, color="#555555", lw=0.8)
    axis.loglog(measured, predicted, "o", ms=4, color=PALETTE[0], alpha=0.7)
    axis.set_xlabel("measured [ms]")
    axis.set_ylabel("fitted [ms]")
    axis.legend(loc="upper left")


def _efficiency(
    drawn: Any, axis: Any, result: CalibrationResult, operator: str, points: Mapping[str, Any]
) -> None:
    horizontal, colour = _AXES.get(operator, ("", ""))
    shape = points["shape"]
    x = np.asarray(shape.get(horizontal, np.arange(1, len(points["measured_s"]) + 1)), float)
    share = 100.0 * _roofline_share(result, operator, points)
    if colour:
        tint = shape["n"] * shape["k"] if operator == "gemm" else np.asarray(shape[colour], float)
        drawn_points = axis.scatter(x, share, c=np.log10(tint), s=22, cmap="viridis")
        bar = drawn.colorbar(drawn_points, ax=axis, pad=0.02)
        bar.set_label(f"log10 {_LABELS.get(colour, colour)}", fontsize=8.5)
    else:
        axis.plot(x, share, "o", ms=5, color=PALETTE[2])
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(horizontal.replace("_", " "))
    axis.set_ylabel("share of the roofline [%]")
    if share.max() > 110.0:
        axis.axhline(100.0, color="#555555", lw=0.8)
        axis.annotate("above: from cache", (0.02, 100.0), (0, 3), fontsize=8, color="#555555",
                      xycoords=("axes fraction", "data"), textcoords="offset points")


def _roofline_share(
    result: CalibrationResult, operator: str, points: Mapping[str, Any]
) -> Any:
    """Return the time at peak rate or full bandwidth, whichever is longer, over the measured."""
    from costsim.kernels.calibration import ideal_times

    if operator not in _AXES:
        return points["predicted_s"] / points["measured_s"]
    compute, memory, _ = ideal_times(operator, result.hardware, points["shape"])
    return np.maximum(compute, memory) / points["measured_s"]


def _residuals(axis: Any, points: Mapping[str, Any]) -> None:
    errors = 100.0 * np.expm1(points["log_errors"])
    limit = max(10.0, float(np.quantile(np.abs(errors), 0.98)) * 1.1)
    axis.hist(np.clip(errors, -limit, limit), bins=np.linspace(-limit, limit, 31),
              color=PALETTE[0], alpha=0.85)
    axis.axvline(0.0, color="#555555", lw=0.8)
    axis.set_xlabel("measured over fitted, less one [%]")
    axis.set_ylabel("rows")
    axis.yaxis.get_major_locator().set_params(integer=True)
