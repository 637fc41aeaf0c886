"""What every comparison of predictions with measurements has in common."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NINETY = 1.6448536


@dataclass(frozen=True)
class ComparedPoint:
    """One measured figure and what was predicted for it.

    Args:
        id: unique within its comparison, together with the quantity.
        quantity: such as ``output_tokens_per_s`` or ``ttft_s``.
        predicted, measured: in SI units.
        log_error: standard deviation of log(actual / predicted); NaN where none is predicted.
        classes: class by kind of class, such as ``{"hardware": "h100_sxm"}``.
        source: where the measured figure stands.
        assumed: what was filled in.
        explanation: of a large error.
        counts: whether the point counts in the aims.
    """

    id: str
    quantity: str
    predicted: float
    measured: float
    log_error: float
    classes: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    assumed: str = ""
    explanation: str = ""
    counts: bool = True

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return math.log(self.predicted / self.measured)

    @property
    def relative(self) -> float:
        """predicted / measured − 1."""
        return self.predicted / self.measured - 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 90 % interval of the prediction."""
        spread = math.exp(NINETY * self.log_error)
        return self.predicted / spread, self.predicted * spread

    def row(self) -> dict[str, Any]:
        """Return the point as one flat row."""
        low, high = self.interval
        return {"id": self.id, "quantity": self.quantity, "measured": self.measured,
                "predicted": self.predicted, "error": self.relative, "low": low, "high": high,
                **self.classes, "counts": self.counts, "assumed": self.assumed,
                "explanation": self.explanation, "source": self.source}


@dataclass(frozen=True)
class Summary:
    """Errors of a class of points.

    Args:
        points: how many.
        median, p90: of |predicted / measured − 1|; bias: median of predicted / measured − 1.
        inside: share of the measured figures inside the 90 % interval; NaN where none is given.
    """

    points: int
    median: float
    p90: float
    bias: float
    inside: float


@dataclass(frozen=True)
class Aim:
    """A figure that a comparison should reach.

    Args:
        what: it is; reached: so far; target: at most (or at least, where ``least``).
        least: whether more is better.
    """

    what: str
    reached: float
    target: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the aim is reached."""
        if not math.isfinite(self.reached):
            return False
        return self.reached >= self.target if self.least else self.reached <= self.target


@dataclass(frozen=True)
class Comparison:
    """A comparison with all of its points, good and bad.

    Args:
        key: short name; title: of its section; about: what is compared, and what was fitted.
        points: all; aims: with what is reached.
        classes: kinds of classes that its tables are by.
        peers: what other programs reach on the same figures, rows of (program, figure, value).
        left_out: reason -> figures that could not be predicted.
        skipped: why nothing was compared; ``""`` where it was.
        tables: further tables, title -> (columns, rows of text).
    """

    key: str
    title: str
    about: str
    points: Sequence[ComparedPoint] = ()
    aims: Sequence[Aim] = ()
    classes: Sequence[str] = ()
    peers: Sequence[tuple[str, str, str]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: str = ""
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = field(
        default_factory=dict)

    def of(self, quantity: str) -> list[ComparedPoint]:
        """Return the points of one quantity."""
        return [p for p in self.points if p.quantity == quantity]

    @property
    def quantities(self) -> list[str]:
        """Quantities in the order of their first point."""
        return list(dict.fromkeys(p.quantity for p in self.points))

    def worst(self, many: int = 10) -> list[ComparedPoint]:
        """Return the points that are furthest off, as factors."""
        return sorted(self.points, key=lambda p: -abs(p.error))[:many]


def summarise(points: Iterable[ComparedPoint]) -> Summary:
    """Return the summary of some points."""
    found = list(points)
    if not found:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    error = np.array([p.error for p in found])
    spread = np.array([p.log_error for p in found])
    size, known = np.abs(np.expm1(error)), np.isfinite(spread)
    inside = (float(np.mean(np.abs(error[known]) <= NINETY * spread[known]))
              if known.any() else math.nan)
    return Summary(len(found), float(np.median(size)), float(np.quantile(size, 0.9)),
                   float(np.median(np.expm1(error))), inside)


def by_class(
    points: Iterable[ComparedPoint], kind: str | Callable[[ComparedPoint], str]
) -> dict[str, Summary]:
    """Return the summaries of the classes of one kind, sorted by name."""
    groups: dict[str, list[ComparedPoint]] = defaultdict(list)
    for p in points:
        name = p.classes.get(kind, "") if isinstance(kind, str) else kind(p)
        if name:
            groups[name].append(p)
    return {name: summarise(groups[name]) for name in sorted(groups)}
