"""What several layouts have in common is priced once: rows of a grid that are alike, folded.

In a grid of layouts by batches most kernels do not depend on all of a layout: attention not on
expert parallelism, experts only on the size of a stage. Rows (all axes but the last) with equal
arguments are found, one of each is priced, and the sums are copied to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below this size, or with more than this share of rows left, folding costs more than it saves.
_SMALLEST, _MOST_LEFT = 4096, 0.7


@dataclass(frozen=True)
class Fold:
    """Which rows are priced for which.

    Args:
        first: a row of each kind.
        kind: of every row.
        lead: the axes that rows run over.
    """

    first: NDArray[np.intp]
    kind: NDArray[np.intp]
    lead: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[Any], rank: int) -> Fold | None:
        """Return the fold of kernels' arguments, or None where none is worth it.

        Args:
            values: numbers, words, and arrays of up to ``rank`` axes with one for kernels before.
            rank: axes of the grid; rows run over all but the last.
        """
        arrays = [v for v in values if isinstance(v, np.ndarray) and v.size > 1]
        shape = np.broadcast_shapes((1,) * (rank + 1), *(v.shape for v in arrays))
        lead = shape[1:-1]
        if np.prod(shape) < _SMALLEST or np.prod(lead, initial=1.0) < 2:
            return None
        rows = [_rows(v, lead) for v in arrays if any(n > 1 for n in v.shape[-len(lead) - 1 : -1])]
        if not rows:
            return None
        # The ends and the middle of a row tell rows apart; all of it is compared afterwards.
        key = np.concatenate([_some(r).reshape(len(r), -1) for r in rows], axis=1)
        _, first, kind = np.unique(key, axis=0, return_index=True, return_inverse=True)
        kind = kind.reshape(-1)
        if len(first) > _MOST_LEFT * len(kind):
            return None
        if not all(np.array_equal(r[first[kind]], r) for r in rows):
            return None
        return cls(first, kind, lead)

    def folded(self, value: Any) -> Any:
        """Return an argument with the rows that are priced in place of all."""
        axes = len(self.lead)
        if not isinstance(value, np.ndarray) or value.ndim < 2:
            return value
        if all(n == 1 for n in value.shape[-axes - 1 : -1]):
            return value.reshape(*value.shape[: -axes - 1], 1, value.shape[-1])
        return np.moveaxis(_rows(value, self.lead)[self.first], 0, -2)

    def unfolded(self, value: Any) -> Any:
        """Return a sum over kernels with all rows."""
        array = np.asarray(value)
        if array.ndim < 2 or len(array) == 1:
            return array.reshape(*(1,) * len(self.lead), -1) if array.ndim == 2 else value
        return array[self.kind].reshape(*self.lead, array.shape[-1])


def _rows(value: NDArray[np.float64], lead: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an array by rows: their axes joined and first, kernels and the last axis behind."""
    axes = len(lead)
    padded = value.reshape(*(1,) * max(0, axes + 1 - value.ndim), *value.shape)
    whole = np.broadcast_to(padded, (*padded.shape[: -axes - 1], *lead, padded.shape[-1]))
    return np.moveaxis(whole.reshape(*whole.shape[: -axes - 1], -1, whole.shape[-1]), -2, 0)


def _some(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    last = rows.shape[-1] - 1
    return rows[..., sorted({0, last // 2, last})]
