"""What many steps have in common is priced once: elements of flat arrays that are alike.

In a search most kernels do not depend on all of a step: linear layers see tokens, whatever the
contexts; attention does not see expert parallelism; experts see the size of a stage only. For each
part of a step (`PARTS`) the elements that differ in it are found once, every kernel of that part is
priced for these, and the sums are copied to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Parts of a step that kernels depend on, each with the accelerators that slice an attention group:
# the tokens of linear layers, the rows of the LM head, prompts, decoding requests, all of these;
# and the tokens of all groups with the layout of the experts.
PARTS = ("tokens", "rows", "prompts", "decodes", "step", "experts")
# Parts that "step" covers: kernels of these may be priced together.
COVERED = frozenset(PARTS[:5])
# Fewer steps than this are not compared with one another; tables with more than this share of
# their places empty have one row.
_FEW, _MOST_EMPTY = 64, 0.7


@dataclass(frozen=True)
class Fold:
    """Which elements are priced for which, as a table.

    Args:
        first: an element of each kind, a table [rows, places]; short rows repeat an element.
        kind: of every element, its place in the flat table.
        partial: whether some elements have none: they are behind the table's last, and zero.
    """

    first: NDArray[np.intp]
    kind: NDArray[np.intp]
    partial: bool = False

    def folded(self, value: Any) -> Any:
        """Return a flat array as the table of what is priced; one column where rows are even."""
        if not isinstance(value, np.ndarray) or not value.ndim:
            return value
        table = value.take(self.first)
        return table[:, :1] if (table[:, 1:] == table[:, :1]).all() else table

    def of_rows(self, kept: NDArray[np.bool_]) -> Fold:
        """Return the fold with some rows only; what it unfolds is zero elsewhere."""
        width, table = self.first.shape[1], self.first[kept]
        place = np.full(kept.shape, table.size)
        place[kept] = width * np.arange(len(table))
        begin = place.take(self.kind // width)
        inside = begin + np.where(begin < table.size, self.kind % width, 0)
        return Fold(table, inside, partial=True)

    def unfolded(self, values: Sequence[Any]) -> list[Any]:
        """Return arrays whose axes are the table's with all elements, as one axis.

        Args:
            values: arrays of the table's shape, flat or not, of one row or one column, or numbers.
        """
        shape, result = self.first.shape, list(values)
        large = []
        for i, value in enumerate(values):
            if not isinstance(value, np.ndarray) or not value.ndim:
                continue
            if value.size == 1 and not self.partial:
                result[i] = value.reshape(-1)[0]
            else:
                large.append(i)
        if not large:
            return result
        tables = np.zeros((len(large), self.first.size + self.partial))
        for table, i in zip(tables, large, strict=True):
            value = values[i].reshape(shape) if values[i].ndim == 1 else values[i]
            table[: self.first.size].reshape(shape)[...] = value
        for i, whole in zip(large, tables.take(self.kind, axis=1), strict=True):
            result[i] = whole
        return result


def _kinds(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return an element of each kind, and the kind of every element."""
    key: Any = 0.0
    for place, column in enumerate(columns):
        # Any weights do that tell columns apart. Where they do not, unlike elements may come to lie
        # between like ones, which are two kinds then.
        key = key + column * (1.0 + 0.7548776662466927 * place) ** 3
    order = key.argsort()
    new = np.zeros(len(order), bool)
    new[0] = True
    for column in columns:
        ordered = column.take(order)
        new[1:] |= ordered[1:] != ordered[:-1]
    kind = np.empty(len(order), np.intp)
    kind[order] = new.cumsum() - 1
    return order[new], kind


def distinct(columns: Sequence[Any], rows: Sequence[Any] = ()) -> Fold | None:
    """Return the fold of elements that are equal in all columns; None where all are numbers.

    Args:
        columns: flat arrays of one length, and numbers.
        rows: more such columns; the table has a row for each of their kinds.
    """
    lines, arrays = _varying(rows), _varying([*rows, *columns])
    if not arrays:
        return None
    first, kind = _kinds(arrays)
    if not lines:
        return Fold(first[None, :], kind)
    head, of = _kinds([line.take(first) for line in lines])
    many = np.bincount(of)
    width = int(many.max())
    if len(first) < (1.0 - _MOST_EMPTY) * width * len(many):
        return Fold(first[None, :], kind)
    order = of.argsort(kind="stable")
    place = np.empty(len(first), np.intp)
    starts = np.repeat(width * np.arange(len(many)) - many.cumsum() + many, many)
    place[order] = starts + np.arange(len(first))
    table = np.repeat(first.take(head), width)
    table[place] = first
    return Fold(table.reshape(-1, width), place.take(kind))


def _varying(columns: Sequence[Any]) -> list[NDArray[Any]]:
    return [c for c in columns if isinstance(c, np.ndarray) and c.size > 1]


def _taken(column: Any, some: NDArray[np.intp]) -> Any:
    return column.take(some) if np.size(column) > 1 else column


@dataclass
class Alike:
    """The folds of flat steps by part, each found when it is first asked for.

    Args:
        size: elements.
        columns: of each part in `PARTS`: those that rows of its table share, and the others.
    """

    size: int
    columns: Mapping[str, Callable[[], tuple[Sequence[Any], Sequence[Any]]]]
    _found: dict[str, Fold | None] = field(default_factory=dict)

    def fold(self, part: str) -> Fold | None:
        """Return the fold of a part; None where there is none.

        Args:
            part: of `PARTS`; others depend on all of a step.
        """
        if self.size < _FEW or part not in self.columns:
            return None
        if part not in self._found:
            self._found[part] = self._fold(part)
        return self._found[part]

    def _fold(self, part: str) -> Fold | None:
        rows, columns = self.columns[part]()
        step = self.fold("step") if part in COVERED and part != "step" else None
        if step is None:
            return distinct(columns, rows)
        # Steps that are alike in all are alike in each part: these are fewer.
        some = step.first.reshape(-1)
        found = distinct([_taken(c, some) for c in columns], [_taken(r, some) for r in rows])
        return found and Fold(some.take(found.first), found.kind)

    def within_step(self, part: str) -> Fold | None:
        """Return the fold that unfolds a part that "step" covers to that part's flat table."""
        fold, step = self.fold(part), self.fold("step")
        if step is None or (fold is not None and part != "step"):
            return fold
        return Fold(step.first, np.arange(step.first.size))

    def left(self, part: str) -> int:
        """Return the elements that are priced for a part."""
        fold = self.fold(part)
        return self.size if fold is None else fold.first.size
