"""Fills the nodes of a correction that no measurement reached, from those around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def filled(values: Array) -> Array:
    """Return the values with unmeasured nodes (NaN) taken from measured ones near them.

    The mean of the lines between measured neighbours on all axes, a line over fewer steps counting
    more. Where there are none, on an axis of two nodes the other's value (no contrast where none
    was measured on both sides), else the next measured value on the first axis that has one. And
    so on from what was filled.
    """
    reached = ~np.isnan(values)
    values = np.where(reached, values, 0.0)
    if not reached.any():
        return values
    while not reached.all():
        lines = [_line(values, reached, axis) for axis, n in enumerate(values.shape) if n > 1]
        between = [(line, span * inside) for line, span, inside in lines]
        near, found = _mean(between)
        if not np.any(found & ~reached):
            near, found = _across(values, reached)
        if not np.any(found & ~reached):
            near, found = _first([(line, span) for line, span, _ in lines])
        values, reached = np.where(reached | ~found, values, near), reached | found
    return values


def _across(
    values: Array, reached: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.bool_]]:
    """Return each node's neighbour on axes of two nodes, and where that is known."""
    near, found = values, np.zeros_like(reached)
    for axis, length in enumerate(values.shape):
        if length == 2:
            other = np.flip(reached, axis) & ~found
            near, found = np.where(other, np.flip(values, axis), near), found | other
    return near, found


def _first(lines: Sequence[tuple[Array, NDArray[np.intp]]]) -> tuple[Array, NDArray[np.bool_]]:
    """Return what the first line says that spans a step at all, and where one does."""
    near, found = lines[0][0], lines[0][1] > 0
    for line, span in lines[1:]:
        near, found = np.where(found, near, line), found | (span > 0)
    return near, found


def _mean(lines: Sequence[tuple[Array, NDArray[np.intp]]]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the mean of lines weighted by 1/steps², and where any spans a step at all."""
    weights = [np.where(span > 0, 1.0 / np.maximum(span, 1) ** 2, 0.0) for _, span in lines]
    total, weight = sum(w * line for w, (line, _) in zip(weights, lines, strict=True)), sum(weights)
    return total / np.maximum(weight, 1e-30), np.asarray(weight) > 0.0


def _line(
    values: Array, known: NDArray[np.bool_], axis: int
) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
    """Return values on lines between known nodes of an axis, the steps they span, and if between.

    Beyond the outermost known node its value is kept, and the steps are those to it. The span is
    zero where nothing on the line is known.
    """
    grid, known = np.moveaxis(values, axis, 0), np.moveaxis(known, axis, 0)
    length = len(grid)
    index = np.arange(length).reshape(-1, *[1] * (grid.ndim - 1))
    before = np.maximum.accumulate(np.where(known, index, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, index, length)[::-1], axis=0)[::-1]
    inside = (before >= 0) & (after < length)
    none = (before < 0) & (after >= length)
    low = np.clip(np.where(before < 0, after, before), 0, length - 1)
    high = np.clip(np.where(after >= length, before, after), 0, length - 1)
    lower, upper = (np.take_along_axis(grid, end, axis=0) for end in (low, high))
    found = lower + (upper - lower) * ((index - low) / np.maximum(high - low, 1))
    span = np.where(none, 0, np.where(inside, high - low, np.abs(index - low)))
    return (np.moveaxis(found, 0, axis), np.moveaxis(span, 0, axis),
            np.moveaxis(inside, 0, axis))
