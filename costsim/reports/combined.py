"""One HTML report over several scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from costsim import __version__
from costsim.reports import html
from costsim.reports.studies import other_pictures, study_sections

if TYPE_CHECKING:
    from costsim.planning.results import ScenarioResult


def write_combined(results: Sequence[ScenarioResult], folder: Path) -> Path:
    """Write report.html with question, findings and figures of every scenario.

    Args:
        results: of the runs; their figures lie in ``folder/NAME``.
        folder: of the combined report.
    """
    sections = []
    for result in results:
        scenario = result.scenario
        pictures = sorted((folder / scenario.name).glob("*.png"))
        body = f"<p class='question'>{scenario.question}</p>"
        for title, study in study_sections(result, pictures):
            body += f"<h3>{title}</h3>{study}"
        body += "<h3>Cost per query</h3>" + html.items(result.findings)
        body += html.items(result.warnings, "warn")
        body += "".join(html.embed(p, p.stem) for p in other_pictures(pictures))
        sections.append((scenario.title, body))
    points = sum(r.points for r in results)
    foot = f"costsim {__version__}; {points:,} operating points priced."
    document = html.page("Scenarios", f"{len(results)} questions, one model of the machine.",
                         sections, foot)
    return html.write_page(folder / "report.html", document)
