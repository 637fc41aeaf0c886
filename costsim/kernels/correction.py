"""A correction to the physics, interpolated on a grid in log space, that fades away outside it.

Values are log(measured / physics) at the nodes of a rectangular grid over log2 features. Between
nodes they are interpolated linearly; outside the grid the edge value is kept and decays by 1/e for
every `FADE_OCTAVES` of distance, so that far from measurements the physics alone decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.kernels.filling import filled

Array = NDArray[np.float64]

FADE_OCTAVES = 6.0


@dataclass(frozen=True)
class Correction:
    """Grid of corrections.

    Args:
        axes: log2 positions of the nodes, ascending, one array for each feature; an empty one where
            the correction does not depend on the feature.
        values: log corrections, one dimension for each axis; NaN where nothing was measured.
    """

    axes: tuple[Array, ...]
    values: Array

    @cached_property
    def grid(self) -> Array:
        """The values, with those not measured filled in from their neighbours."""
        return filled(self.values)

    @cached_property
    def _nodes(self) -> tuple[list[float], ...]:
        return tuple(axis.tolist() for axis in self.axes)

    def at(self, features: Sequence[Any], steady: Collection[int] = ()) -> tuple[Any, Any]:
        """Return the correction and the distance outside the grid [octaves].

        Args:
            features: log2 features, broadcastable; features of size one cost next to nothing.
            steady: features beyond whose range the correction keeps its value.
        """
        grid, waiting, axis = self.grid, [], 0
        outside: Any = 0.0
        fading: Any = 0.0
        for number, (nodes, feature) in enumerate(zip(self.axes, features, strict=True)):
            if len(nodes) == 0:
                grid = _contract(grid, axis, 0, 0.0)
                continue
            x = np.asarray(feature, float)
            one = x.size == 1
            low, share, distance = (locate_one(self._nodes[number], x.item()) if one
                                    else locate(nodes, x))
            outside = outside + distance
            # Along an axis measured at one place only nothing says that the correction fades.
            if len(nodes) > 1 and number not in steady:
                fading = fading + distance
            if one:
                grid = _contract(grid, axis, low, share)
            else:
                waiting.append((low, share))
                axis += 1
        value = _gather(grid, waiting)
        if np.any(fading):
            value = value * np.exp(-fading / FADE_OCTAVES)
        return value, outside


def locate_one(nodes: Sequence[float], x: float) -> tuple[int, float, float]:
    """Return the same as `locate` for one number, in a tenth of the time."""
    inside = min(max(x, nodes[0]), nodes[-1])
    if len(nodes) == 1:
        return 0, 0.0, abs(x - inside)
    low = bisect_right(nodes, inside, 1, len(nodes) - 1) - 1
    return low, (inside - nodes[low]) / (nodes[low + 1] - nodes[low]), abs(x - inside)


def locate(nodes: Array, feature: Any) -> tuple[Any, Any, Any]:
    """Return the lower node, the share of the upper one, and the distance outside the nodes."""
    x = np.asarray(feature, float)
    inside = np.minimum(np.maximum(x, nodes[0]), nodes[-1])
    beyond = x - inside
    distance = np.abs(beyond) if beyond.any() else 0.0
    if len(nodes) == 1:
        return np.zeros(x.shape, np.intp), np.zeros(x.shape), distance
    low = np.asarray(nodes[1:-1].searchsorted(inside, side="right"))
    lower = nodes.take(low)
    share = (inside - lower) / (nodes.take(low + 1) - lower)
    return low, share, distance


def _contract(grid: Array, axis: int, i: int, f: float) -> Array:
    """Return the grid with one axis interpolated away."""
    lower = np.asarray(grid.take(i, axis))
    if f == 0.0:
        return lower
    return np.asarray(lower * (1.0 - f) + grid.take(i + 1, axis) * f)


def _gather(grid: Array, places: list[tuple[Any, Any]]) -> Any:
    """Return the multilinear interpolation on the axes that are left.

    Two ways give the same: corner by corner, or one axis after the other, which is less work where
    features broadcast (a sweep's axes) and more where each is of full size.
    """
    if not places:
        return float(grid)
    order = _order(grid.shape, tuple(low.shape for low, _ in places))
    if order:
        return _by_axis(grid.transpose(order), [places[axis] for axis in order])
    return _by_corner(grid, places)


@lru_cache(maxsize=4096)
def _order(grid: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Return the order in which axes are contracted; empty where corners are less work.

    Args:
        grid: its shape.
        shapes: of the places on each axis.
    """
    order = sorted(range(len(shapes)), key=lambda axis: prod(shapes[axis]))
    seen, rest, work = (), float(prod(grid)), 0.0
    for axis in order:
        rest /= grid[axis]
        seen = np.broadcast_shapes(seen, shapes[axis])
        work += 6.0 * prod(seen) * rest
    corners = 7.0 * 2 ** len(shapes) * prod(np.broadcast_shapes(*shapes))
    return tuple(order) if work < corners else ()


def _by_axis(grid: Array, places: list[tuple[Any, Any]]) -> Any:
    """Return the interpolation, contracting one axis of the grid after the other."""
    table: Any = grid
    seen: tuple[int, ...] = ()
    for done, (low, share) in enumerate(places):
        size, rest = grid.shape[done], prod(grid.shape[done + 1:])
        index = np.arange(0, prod(seen) * size, size).reshape(seen) + low if seen else low
        lines = table.reshape(-1, rest) if rest > 1 else table.reshape(-1)
        lower = lines.take(index, axis=0)
        if size > 1:
            upper = lines.take(index + 1, axis=0)
            lower = lower + (upper - lower) * (share[..., None] if rest > 1 else share)
        table, seen = lower, index.shape
    return table.reshape(seen)


def _by_corner(grid: Array, places: list[tuple[Any, Any]]) -> Any:
    """Return the interpolation as the weighted sum over the corners of each cell."""
    strides = np.array([int(np.prod(grid.shape[a + 1:])) for a in range(grid.ndim)])
    flat, total = grid.reshape(-1), 0.0
    pairs = [ends(low * stride, share, stride, size) for (low, share), stride, size
            in zip(places, strides, grid.shape, strict=True)]
    for corner in np.ndindex(*(len(e) for e in pairs)):
        index, weight = pairs[0][corner[0]]
        for a in range(1, len(pairs)):
            index = index + pairs[a][corner[a]][0]
            weight = weight * pairs[a][corner[a]][1]
        total = total + flat[index] * weight
    return total


def ends(index: Any, share: Any, stride: int, size: int) -> list[tuple[Any, Any]]:
    """Return the two neighbours on an axis, or one where the axis has a single node."""
    if size == 1:
        return [(index, 1.0)]
    return [(index, 1.0 - share), (index + stride, share)]
