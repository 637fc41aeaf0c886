"""Comparisons as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group

from costsim.reports.accuracy import POINT, SUMMARY, aim_row, class_rows, worst_rows
from costsim.reports.figures_accuracy import shown
from costsim.reports.tables import plain_table
from costsim.validation.comparison import Comparison


def accuracy_table(found: Sequence[Comparison]) -> Group:
    """Return what every comparison reaches of its aims, and what was skipped."""
    rows = [[c.title, *aim_row(a)] for c in found for a in c.aims]
    parts: list[Any] = [plain_table("How far predictions and measurements lie apart",
                                    ("comparison", "figure", "reached", "aim", "met"), rows,
                                    left=2)]
    parts += [f"{c.title}: not compared, {c.skipped}" for c in found if c.skipped]
    return Group(*parts)


def comparison_table(c: Comparison) -> Group:
    """Return one comparison: aims, classes of every quantity, the worst, what was left out."""
    parts: list[Any] = [c.about]
    if c.aims:
        parts.append(plain_table("Aims", ("figure", "reached", "aim", "met"),
                                 [aim_row(a) for a in c.aims]))
    for q in c.quantities:
        parts.append(plain_table(f"{c.title}: {shown(q)[0]}", SUMMARY, list(class_rows(c, q))))
    parts += [plain_table(title, columns, [list(row) for row in cells])
              for title, (columns, cells) in c.tables.items() if len(cells) <= 60]
    if c.points:
        parts.append(plain_table("The ten furthest off", POINT, list(worst_rows(c.worst())),
                                 left=2))
    parts += [f"left out, {n}: {reason}" for reason, n in c.left_out.items()]
    return Group(*parts)
