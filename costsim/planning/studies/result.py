"""What a study found: a table, sentences, and the figure's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Series:
    """One line or group of bars of a figure."""

    name: str
    x: Sequence[Any]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """The figure of a study.

    Args:
        kind: ``line`` or ``bar`` (x are labels).
        x, y: labels of the axes.
        series: what is drawn.
        log_x, log_y: scales.
        level: a horizontal line with its label, or None.
        money: the y axis is in dollars.
    """

    kind: str
    x: str
    y: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    level: tuple[float, str] | None = None
    money: bool = False


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Args:
        title: heading.
        columns, rows: of the table, as text.
        findings: sentences, all computed.
        chart: figure, None for none.
        source: where its own assumptions come from.
        points: operating points priced.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[str]
    chart: Chart | None = None
    source: str = ""
    points: int = 0
    data: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"title": self.title, "columns": list(self.columns),
                "rows": [list(row) for row in self.rows], "findings": list(self.findings),
                "source": self.source, **self.data}
