"""Figures of predicted against measured: scatter with interval bars, error by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costsim.reports.style import colours, figure, save
from costsim.validation.comparison import NINETY, ComparedPoint, Comparison

_MOST_COLOURS = 8
_MOST_BARS, _MOST_CLASSES = 3000, 45
_RATIOS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_RATIOS_WIDE = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0)
_RATIOS_NARROW = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25)
UNITS = {"ttft_s": ("TTFT", "ms", 1e3), "tpot_s": ("TPOT", "ms", 1e3),
         "e2e_s": ("end-to-end latency", "s", 1.0), "kernel_s": ("kernel time", "µs", 1e6),
         "duration_s": ("duration", "s", 1.0), "step_s": ("step", "s", 1.0),
         "output_tokens_per_s": ("output", "tokens/s", 1.0),
         "output_tokens_per_s_per_accelerator": ("output per accelerator", "tokens/s", 1.0),
         "input_tokens_per_s": ("prompts", "tokens/s", 1.0),
         "ratio": ("cost ratio", "", 1.0), "tokens_per_s": ("rate", "tokens/s", 1.0),
         "total_flop": ("work", "EFLOP", 1e-18),
         "gpu_hours": ("accelerator time", "h", 1.0), "mfu": ("MFU", "", 1.0),
         "flop_per_s": ("rate", "TFLOP/s", 1e-12)}


def shown(quantity: str) -> tuple[str, str, float]:
    """Return a quantity's name, unit and factor from SI."""
    return UNITS.get(quantity, (quantity.replace("_", " "), "", 1.0))


def draw_scatter(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw predicted over measured of every quantity with enough points, bars of 90 %."""
    quantities = [q for q in comparison.quantities if len(comparison.of(q)) >= 3][:3]
    if not quantities:
        return []
    kind = comparison.classes[0] if comparison.classes else ""
    groups = _groups(comparison.points, kind)
    title = f"{comparison.title}: predicted against measured"
    foot = ("costsim; each bar is the 90 % interval of one prediction, the line exact agreement; "
            "hollow: does not count in the aims")
    with figure(title, foot, columns=len(quantities), height=5.6) as (drawn, axes):
        for axis, quantity in zip(np.atleast_1d(axes), quantities, strict=True):
            _scatter(axis, comparison.of(quantity), quantity, kind, groups)
        _legend(np.atleast_1d(axes)[0], groups, kind)
        return save(drawn, folder, f"{comparison.key}_scatter")


def _legend(axis: Any, tint: dict[str, str], kind: str) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", ls="", color=colour, label=name or "all")
             for name, colour in tint.items()]
    axis.legend(handles=marks, loc="lower right", title=kind, fontsize=8, frameon=True,
                framealpha=0.8, edgecolor="none")


def _groups(points: Sequence[ComparedPoint], kind: str) -> dict[str, str]:
    """Return a colour for each of the most frequent classes; the others share grey."""
    names = Counter(p.classes.get(kind, "") for p in points)
    most = [name for name, _ in names.most_common(_MOST_COLOURS)]
    tint = colours(sorted(most))
    if len(names) > len(most):
        tint["others"] = "#999999"
    return tint


def _scatter(
    axis: Any, points: Sequence[ComparedPoint], quantity: str, kind: str, tint: dict[str, str]
) -> None:
    name, unit, factor = shown(quantity)
    for group, colour in tint.items():
        own = [p for p in points if _group(p, kind, tint) == group]
        if not own:
            continue
        x = np.array([p.measured for p in own]) * factor
        y = np.array([p.predicted for p in own]) * factor
        spread = np.exp(NINETY * np.array([p.log_error for p in own]))
        if len(points) <= _MOST_BARS and np.isfinite(spread).all():
            axis.vlines(x, y / spread, y * spread, color=colour, lw=0.8,
                        alpha=float(np.clip(120.0 / len(points), 0.08, 0.6)))
        solid = np.array([p.counts for p in own])
        size = 14 if len(points) < 1000 else 5
        axis.scatter(x[solid], y[solid], s=size, alpha=0.75, color=colour, lw=0)
        axis.scatter(x[~solid], y[~solid], s=size, alpha=0.75, facecolors="none",
                     edgecolors=colour, lw=0.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    values = np.array([[p.measured, p.predicted] for p in points]) * factor
    low, high = values.min() * 0.8, values.max() * 1.25
    axis.plot([low, high], [low, high], color="#333333", lw=1)
    for side in (axis.xaxis, axis.yaxis):
        _logarithmic(side, low, high)
    label = f"{name} [{unit}]" if unit else name
    axis.set_xlabel(f"measured {label}")
    axis.set_ylabel(f"predicted {label}")


def _logarithmic(side: Any, low: float, high: float) -> None:
    """Scale an axis by powers of ten, with labels such as 0.5, 20 and 3k."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    side.axes.set(**{f"{side.axis_name}scale": "log", f"{side.axis_name}lim": (low, high)})
    decades = np.log10(high / low)
    side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    side.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    side.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _group(point: ComparedPoint, kind: str, tint: dict[str, str]) -> str:
    name = point.classes.get(kind, "")
    return name if name in tint else "others"


def draw_classes(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw the ratio predicted / measured by class, of the main quantity."""
    if not comparison.classes or not comparison.points:
        return []
    quantity = comparison.quantities[0]
    points = comparison.of(quantity)
    rows = [("", f"all ({len(points)})", np.array([p.error for p in points]))]
    rows += [(kind, f"{name} ({len(errors)})", errors) for kind in comparison.classes
             for name, errors in _errors(points, kind)]
    rows = rows[:_MOST_CLASSES]
    name = shown(quantity)[0]
    foot = "costsim; box: middle half, whiskers: 5th and 95th percentile, numbers: points"
    height = 1.6 + 0.24 * len(rows)
    title = f"{comparison.title}: {name}, error by class"
    with figure(title, foot, height=height) as (drawn, axis):
        _boxes(axis, [errors for _, _, errors in rows])
        axis.set_yticks(range(1, len(rows) + 1), [n for _, n, _ in rows], fontsize=8.5)
        _kinds(axis, [kind for kind, _, _ in rows])
        axis.invert_yaxis()
        axis.axvline(0.0, color="#333333", lw=1)
        low, high = axis.get_xlim()
        wide = _RATIOS if high - low < np.log(9.0) else _RATIOS_WIDE
        marks = _RATIOS_NARROW if high - low < np.log(1.6) else wide
        ticks = [r for r in marks if low <= np.log(r) <= high]
        axis.set_xticks(np.log(ticks), [f"{r:g}×" for r in ticks])
        axis.set_xlabel("predicted over measured")
        return save(drawn, folder, f"{comparison.key}_classes")


def _boxes(axis: Any, errors: Sequence[Any]) -> None:
    """Draw a row of 5th, 25th, 50th, 75th and 95th percentiles for each class."""
    marks = np.array([np.quantile(e, (0.05, 0.25, 0.5, 0.75, 0.95)) for e in errors])
    at = np.arange(1, len(marks) + 1)
    axis.hlines(at, marks[:, 0], marks[:, 4], color="#0072B2", lw=1.2)
    axis.barh(at, marks[:, 3] - marks[:, 1], 0.55, marks[:, 1], color="#BFDCEE",
              edgecolor="#0072B2", lw=1.0, zorder=2)
    axis.vlines(marks[:, 2], at - 0.28, at + 0.28, color="#D55E00", lw=2.0, zorder=3)
    axis.set_ylim(0.4, len(marks) + 0.6)


def _kinds(axis: Any, kinds: Sequence[str]) -> None:
    """Part the kinds of classes by lines, and name each at the right."""
    for i, kind in enumerate(kinds, start=1):
        if i > 1 and kind != kinds[i - 2]:
            axis.axhline(i - 0.5, color="#999999", lw=0.7)
            axis.text(1.0, i, f" {kind}", transform=axis.get_yaxis_transform(), fontsize=8.5,
                      style="italic", va="center")


def _errors(points: Sequence[ComparedPoint], kind: str) -> list[tuple[str, Any]]:
    groups: dict[str, list[float]] = {}
    for p in points:
        name = p.classes.get(kind, "")
        if name:
            groups.setdefault(name, []).append(p.error)
    return [(name, np.array(groups[name])) for name in sorted(groups)]
