"""A scenario's studies in the terminal and in HTML: findings, figure and table together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costsim.reports import html
from costsim.reports.figures_studies import study_stem
from costsim.reports.tables import plain_table

if TYPE_CHECKING:
    from costsim.planning.results import ScenarioResult


def study_tables(result: ScenarioResult) -> list[Any]:
    """Return each study's table with its findings below, for the terminal."""
    parts: list[Any] = []
    for study in result.studies:
        parts.append(plain_table(study.title, study.columns, study.rows))
        parts += [f" • {line}" for line in study.findings]
    return parts


def study_sections(result: ScenarioResult, figures: Sequence[Path]) -> list[tuple[str, str]]:
    """Return heading and HTML of each study.

    Args:
        result: of the run.
        figures: files that were drawn; those of the studies are taken from them.
    """
    by_name = {path.name: path for path in figures}
    sections = []
    for i, study in enumerate(result.studies):
        body = html.items(study.findings)
        picture = by_name.get(f"{study_stem(i)}.png")
        if picture is not None:
            body += html.embed(picture, study.title)
        body += html.table(study.columns, study.rows)
        sections.append((study.title, body))
    return sections


def other_pictures(figures: Sequence[Path]) -> list[Path]:
    """Return the PNG figures that belong to no study."""
    return [p for p in figures if p.suffix == ".png" and not p.name.startswith("study_")]
