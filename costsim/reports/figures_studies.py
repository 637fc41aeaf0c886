"""Figures of a scenario's studies."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.reports.style import MARKERS, colours, dollars, figure, save

if TYPE_CHECKING:
    from costsim.planning.results import ScenarioResult
    from costsim.planning.studies.result import Chart


def study_stem(index: int) -> str:
    """Return the file name, without ending, of a study's figure."""
    return f"study_{index + 1}"


def draw_studies(result: ScenarioResult, folder: Path) -> list[Path]:
    """Draw the figure of every study that has one, numbered in the file's order."""
    paths = []
    for i, study in enumerate(result.studies):
        if study.chart is not None and any(len(s.y) for s in study.chart.series):
            paths += draw_chart(study.chart, study.title, folder, study_stem(i))
    return paths


def draw_chart(chart: Chart, title: str, folder: Path, name: str) -> list[Path]:
    """Draw lines, or bars in groups."""
    foot = "costsim; assumptions and sources in the report; rumoured and hypothetical models marked"
    with figure(title, foot) as (drawn, axis):
        tint = colours([s.name for s in chart.series])
        if chart.kind == "bar":
            _bars(axis, chart, tint)
        else:
            for i, s in enumerate(chart.series):
                axis.plot(s.x, s.y, MARKERS[i % len(MARKERS)] + "-", ms=4.5, lw=1.7,
                          color=tint[s.name], label=s.name)
        if chart.log_x:
            _log_ticks(axis, chart)
        if chart.log_y:
            axis.set_yscale("log")
        if chart.level is not None:
            axis.axhline(chart.level[0], color="#444444", lw=1.1, ls="--", label=chart.level[1])
        if chart.money:
            axis.yaxis.set_major_formatter(dollars)
        if chart.kind == "bar" and len(chart.series) > 1:
            axis.margins(y=0.3)  # room for the legend
        axis.set_xlabel(chart.x)
        axis.set_ylabel(chart.y)
        if len(chart.series) > 1 or chart.level is not None:
            axis.legend(fontsize=8.5)
        return save(drawn, folder, name)


def _log_ticks(axis: Any, chart: Chart) -> None:
    axis.set_xscale("log")
    ticks = sorted({float(x) for s in chart.series for x in s.x})
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()


def _bars(axis: Any, chart: Chart, tint: dict[str, str]) -> None:
    labels = list(chart.series[0].x)
    width = 0.8 / len(chart.series)
    for i, s in enumerate(chart.series):
        at = np.arange(len(labels)) + (i - (len(chart.series) - 1) / 2) * width
        axis.bar(at, s.y, width=width * 0.94, color=tint[s.name], label=s.name)
    wrapped = ["\n".join(textwrap.wrap(str(label), 17)) for label in labels]
    axis.set_xticks(range(len(labels)), wrapped, fontsize=8.5)
    axis.grid(axis="x", visible=False)
