"""One Markdown page for each scenario, written from its results, with its figures beside it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from costsim.files import write_atomically
from costsim.reports.figures_studies import study_stem
from costsim.reports.scenario import model_rows
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.planning.results import ScenarioResult

_COLOURS = 96
# The age of a price grows by the day; a page says only how old its newest quote is.
_AGE = re.compile(r"; STALE: \d+ days old")
_NOTE = ("*Written by `costsim run all --pages {folder}` from the results; every number and every "
         "sentence of the findings is computed.*")


def write_page(result: ScenarioResult, drawn: Path, folder: Path) -> Path:
    """Write NAME.md with question, assumptions, figures, findings and sources.

    Args:
        result: of the run.
        drawn: folder that holds the run's figures.
        folder: of the pages.
    """
    scenario = result.scenario
    lines = [f"# {scenario.title}", "", scenario.question, "",
             _NOTE.format(folder=_shown(folder)), "", "## What it finds", ""]
    for i, study in enumerate(result.studies):
        lines += [f"### {study.title}", ""]
        lines += _image(drawn, study_stem(i), folder, scenario.name, study.title)
        lines += [f"- {line}" for line in study.findings]
        lines += ["", *_table(study.columns, study.rows), ""]
    lines += _general(result, drawn, folder)
    lines += _assumptions(result)
    return write_atomically(folder / f"{scenario.name}.md", "\n".join(lines).rstrip() + "\n")


def _shown(folder: Path) -> str:
    parts = folder.parts
    return "/".join(parts[parts.index("docs"):]) if "docs" in parts else folder.name


def _general(result: ScenarioResult, drawn: Path, folder: Path) -> list[str]:
    scenario = result.scenario
    lines = ["### Cost per query", ""]
    lines += _image(drawn, "cost_against_load", folder, scenario.name, "cost against load")
    lines += [f"- {line}" for line in result.findings]
    if result.warnings:
        told = [_AGE.sub("", line) for line in result.warnings]
        lines += ["", "## Before you believe it", "", *[f"- {line}" for line in told]]
    return [*lines, ""]


def _assumptions(result: ScenarioResult) -> list[str]:
    scenario = result.scenario
    lines = ["## What it assumes", "", *[f"- {line}" for line in scenario.assumptions]]
    lines += [f"- Workload *{w.title}*: {w.isl:g} tokens in, {w.osl:g} out, {w.target}."
              for w in scenario.workloads]
    rents = {f"- {c.hardware.key}: ${float(c.estimate.rent.central):.2f}/h "
             f"({c.estimate.rent.note.partition('; STALE')[0]})"
             for c in result.found() if c.estimate}
    lines += [*sorted(rents), "", *_table(("model", "total", "active", "weights", "caveat"),
                                          model_rows(result)), "", "Sources:", ""]
    sources = [scenario.source, *(f"{s.title}: {s.source}" for s in result.studies if s.source)]
    sources += [f"{m.title}: {m.model.source}" for m in scenario.models]
    sources += [f"API price of {p['name']} ({p['date']}): {p['source']}"
                for p in scenario.api_prices]
    lines += [f"- {line}" for line in dict.fromkeys(sources) if line]
    return [*lines, "", f"{format_quantity(result.points, 'count')} operating points priced. "
            f"The same as tables, data and HTML: `costsim run {scenario.name}`."]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def cells(row: Sequence[str]) -> str:
        return "| " + " | ".join(str(c).replace("\\[", "[").replace("|", "/") for c in row) + " |"

    if not rows:
        return []
    return [cells(columns), "|" + "---|" * len(columns), *map(cells, rows)]


def _image(drawn: Path, stem: str, folder: Path, name: str, alt: str) -> list[str]:
    """Copy a figure with few colours, so that it stays small; returns its Markdown."""
    source = drawn / f"{stem}.png"
    if not source.is_file():
        return []
    from PIL import Image

    with Image.open(source) as image:
        image.thumbnail((1100, 1100))
        small = image.convert("RGB").quantize(_COLOURS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    target = write_atomically(folder / "images" / f"{name}_{stem}.png", buffer.getvalue())
    return [f"![{alt}](images/{target.name})", ""]


def write_index(results: Sequence[ScenarioResult], folder: Path) -> Path:
    """Write README.md: every scenario with its question and its first finding."""
    lines = ["# What the scenarios find", "", _NOTE.format(folder=_shown(folder)), ""]
    for result in results:
        scenario = result.scenario
        lines += [f"- [{scenario.title}]({scenario.name}.md). {scenario.question}"]
        said = [line for study in result.studies for line in study.findings]
        lines += [f"  *{line}*" for line in [*said, *result.findings][:1]]
    return write_atomically(folder / "README.md", "\n".join(lines) + "\n")
