"""The accuracy report: one page with every comparison and every point, and its Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from costsim.files import write_atomically
from costsim.reports.figures_accuracy import draw_classes, draw_scatter, shown
from costsim.reports.html import embed, items, page, table, write_page
from costsim.reports.validation import percent
from costsim.validation.comparison import (
    Aim,
    ComparedPoint,
    Comparison,
    Summary,
    by_class,
    summarise,
)
from costsim.validation.comparisons import rows

_MOST_ROWS = 8000
COMMAND = "costsim validate all --write docs/accuracy.md"
SUMMARY = ("", "points", "median error", "bias", "90th percentile", "in 90 % interval")
POINT = ("point", "explanation", "measured", "predicted", "error")


def figure_of(value: float, quantity: str) -> str:
    """Return a figure in the unit it is usually read in, with four digits."""
    _, unit, factor = shown(quantity)
    if unit == "ms" and value >= 10.0:
        unit, factor = "s", 1.0
    number = float(f"{value * factor:.4g}")
    return f"{number:,.0f} {unit}".strip() if number >= 1000 else f"{number:g} {unit}".strip()


def aim_row(aim: Aim) -> list[str]:
    """Return an aim as cells: what, reached, wanted, whether it is met."""
    def cell(x: float) -> str:
        return f"{x:.2f}" if "Kendall" in aim.what else percent(x)

    sign = "≥" if aim.least else "≤"
    return [aim.what, cell(aim.reached), f"{sign} {cell(aim.target)}", "yes" if aim.met else "no"]


def summary_row(name: str, s: Summary) -> list[str]:
    """Return a summary as cells."""
    return [name, str(s.points), percent(s.median), percent(s.bias, True), percent(s.p90),
            percent(s.inside)]


def class_rows(comparison: Comparison, quantity: str) -> Iterator[list[str]]:
    """Yield the summaries of all points of a quantity and of each of its classes."""
    points = comparison.of(quantity)
    yield summary_row("all", summarise(points))
    for kind in comparison.classes:
        for name, s in by_class(points, kind).items():
            yield summary_row(f"{kind}: {name}", s)


def worst_rows(points: Iterable[ComparedPoint]) -> Iterator[list[str]]:
    """Yield points as cells with what explains their error."""
    for p in points:
        name = p.id if p.quantity in p.id else f"{p.id}, {shown(p.quantity)[0]}"
        yield [name, p.explanation, figure_of(p.measured, p.quantity),
               figure_of(p.predicted, p.quantity), percent(p.relative, True)]


def write_report(found: Sequence[Comparison], folder: Path) -> list[Path]:
    """Write ``accuracy.html``, ``accuracy.json``, ``points.csv`` and the figures.

    Args:
        found: comparisons.
        folder: to write into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [("At a glance", _glance(found))]
    for c in found:
        sections.append((c.title, _section(c, folder)))
    document = page(
        "How far predictions and measurements lie apart",
        "Every comparison that costsim has, every point of it, good or bad. Errors are those of "
        "predicted over measured; the 90 % interval is what the prediction itself said.",
        sections, f"Written by: {COMMAND.split(' --')[0]} --output FOLDER")
    return [
        write_page(folder / "accuracy.html", document),
        write_atomically(folder / "accuracy.json",
                         json.dumps(data_of(found), indent=1, allow_nan=False) + "\n"),
        write_atomically(folder / "points.csv", points_csv(found)),
    ]


def _glance(found: Sequence[Comparison]) -> str:
    cells = [[c.title, *aim_row(a)] for c in found for a in c.aims]
    text = table(("comparison", "figure", "reached", "aim", "met"), cells, left=2)
    return text + items((f"{c.title}: not compared, {c.skipped}" for c in found if c.skipped),
                        "warn")


def _section(c: Comparison, folder: Path) -> str:
    import html

    if c.skipped:
        return items([f"not compared: {c.skipped}"], "warn")
    parts = [f"<p>{html.escape(c.about)}</p>"]
    if c.aims:
        parts.append(table(("figure", "reached", "aim", "met"), map(aim_row, c.aims)))
    for paths, alt in ((draw_scatter(c, folder), "predicted against measured"),
                       (draw_classes(c, folder), "error by class")):
        parts += [embed(p, f"{c.title}: {alt}") for p in paths if p.suffix == ".png"]
    if c.peers:
        parts.append(table(("program", "figure", "its own"), c.peers, left=2))
    for q in c.quantities:
        parts.append(f"<h3>{html.escape(shown(q)[0])}</h3>"
                     + table(SUMMARY, class_rows(c, q)))
    if c.points:
        parts.append("<h3>The ten furthest off</h3>" + table(POINT, worst_rows(c.worst()), 2))
    for title, (columns, cells) in c.tables.items():
        parts.append(_folded(title, table(columns, cells)))
    if c.left_out:
        parts.append("<h3>Left out</h3>"
                     + items(f"{n}: {reason}" for reason, n in c.left_out.items()))
    if 0 < len(c.points) <= _MOST_ROWS:
        every = sorted(c.points, key=lambda p: -abs(p.error))
        parts.append(_folded(f"All {len(c.points)} points", table(
            ("point", "source", "measured", "predicted", "error"),
            ([cells[0], p.source, *cells[2:]]
             for p, cells in zip(every, worst_rows(every), strict=True)), 2)))
    elif c.points:
        parts.append(f"<p>All {len(c.points)} points stand in points.csv.</p>")
    return "".join(parts)


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"


def points_csv(found: Sequence[Comparison]) -> str:
    """Return all points as CSV."""
    every = rows(found)
    columns = list(dict.fromkeys(name for row in every for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    return out.getvalue()


def data_of(found: Sequence[Comparison]) -> dict[str, Any]:
    """Return the summaries, aims and worst points of all comparisons as plain data."""
    return {c.key: _plain({
        "title": c.title, "about": c.about, "skipped": c.skipped,
        "aims": [{**asdict(a), "met": a.met} for a in c.aims],
        "peers": [dict(zip(("program", "figure", "value"), row, strict=True)) for row in c.peers],
        "left_out": dict(c.left_out),
        "quantities": {q: {
            "all": asdict(summarise(c.of(q))),
            "classes": {k: {n: asdict(s) for n, s in by_class(c.of(q), k).items()}
                        for k in c.classes}} for q in c.quantities},
        "worst": [p.row() for p in c.worst()],
    }) for c in found}


def _plain(value: Any) -> Any:
    """Return data with numbers that JSON has not as None."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
