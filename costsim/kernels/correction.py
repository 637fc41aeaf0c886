"""A correction to the physics, interpolated on a grid in log space, that fades away outside it.

Values are log(measured / physics) at the nodes of a rectangular grid over log2 features. Between
nodes they are interpolated linearly; outside the grid the edge value is kept and decays by 1/e for
every `FADE_OCTAVES` of distance, so that far from measurements the physics alone decides.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FADE_OCTAVES = 3.0
# Values are stored in steps of at least 1 %.
STEP = 0.01


@dataclass(frozen=True)
class Correction:
    """Grid of corrections.

    Args:
        axes: log2 positions of the nodes, ascending, one array for each feature.
        values: log corrections, one dimension for each axis.
    """

    axes: tuple[Array, ...]
    values: Array

    def at(self, features: Sequence[Any]) -> tuple[Any, Any]:
        """Return the correction and the distance outside the grid [octaves].

        Args:
            features: log2 features, broadcastable; features of size one cost next to nothing.
        """
        grid, waiting, axis = self.values, [], 0
        outside: Any = 0.0
        fading: Any = 0.0
        for nodes, feature in zip(self.axes, features, strict=True):
            low, share, distance = locate(nodes, feature)
            outside = outside + distance
            # Along an axis measured at one place only nothing says that the correction fades.
            fading = fading + (distance if len(nodes) > 1 else 0.0)
            if low.size == 1:
                i, f = int(low.reshape(-1)[0]), float(share.reshape(-1)[0])
                grid = _contract(grid, axis, i, f)
            else:
                waiting.append((low, share))
                axis += 1
        value = _gather(grid, waiting)
        if np.any(fading):
            value = value * np.exp(-fading / FADE_OCTAVES)
        return value, outside


def locate(nodes: Array, feature: Any) -> tuple[Any, Any, Any]:
    """Return the lower node, the share of the upper one, and the distance outside the nodes."""
    x = np.asarray(feature, float)
    inside = np.clip(x, nodes[0], nodes[-1])
    if len(nodes) == 1:
        return np.zeros(x.shape, np.intp), np.zeros(x.shape), np.abs(x - inside)
    low = np.clip(np.searchsorted(nodes, inside, side="right") - 1, 0, len(nodes) - 2)
    share = (inside - nodes[low]) / (nodes[low + 1] - nodes[low])
    return low, share, np.abs(x - inside)


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
    sizes = np.array([low.size for low, _ in places])
    order = np.argsort(sizes, kind="stable")
    full = np.broadcast_shapes(*(low.shape for low, _ in places))
    seen, rest, work = (), float(grid.size), 0.0
    for axis in order:
        rest /= grid.shape[axis]
        seen = np.broadcast_shapes(seen, places[axis][0].shape)
        work += 6.0 * float(np.prod(seen)) * rest
    if work < 7.0 * 2 ** len(places) * float(np.prod(full)):
        return _by_axis(grid.transpose(order), [places[axis] for axis in order])
    return _by_corner(grid, places)


def _by_axis(grid: Array, places: list[tuple[Any, Any]]) -> Any:
    """Return the interpolation, contracting one axis of the grid after the other."""
    table, seen = grid, ()
    for done, (low, share) in enumerate(places):
        size, rest = grid.shape[done], int(np.prod(grid.shape[done + 1:]))
        rows = np.arange(int(np.prod(seen))).reshape(seen) * size
        index = rows + low
        lines = table.reshape(-1, rest) if rest > 1 else table.reshape(-1)
        lower = lines.take(index, axis=0)
        if size > 1:
            upper = lines.take(index + 1, axis=0)
            lower = lower + (upper - lower) * (share[..., None] if rest > 1 else share)
        table, seen = lower, np.broadcast_shapes(seen, low.shape)
    return table.reshape(seen)


def _by_corner(grid: Array, places: list[tuple[Any, Any]]) -> Any:
    """Return the interpolation as the weighted sum over the corners of each cell."""
    strides = np.array([int(np.prod(grid.shape[a + 1:])) for a in range(grid.ndim)])
    flat, total = grid.reshape(-1), 0.0
    ends = [_ends(low * stride, share, stride, size) for (low, share), stride, size
            in zip(places, strides, grid.shape, strict=True)]
    for corner in np.ndindex(*(len(e) for e in ends)):
        index, weight = ends[0][corner[0]]
        for a in range(1, len(ends)):
            index = index + ends[a][corner[a]][0]
            weight = weight * ends[a][corner[a]][1]
        total = total + flat[index] * weight
    return total


def _ends(index: Any, share: Any, stride: int, size: int) -> list[tuple[Any, Any]]:
    """Return the two neighbours on an axis, or one where the axis has a single node."""
    if size == 1:
        return [(index, 1.0)]
    return [(index, 1.0 - share), (index + stride, share)]


def nodes_for(feature: Array, most: int) -> Array:
    """Return at most ``most`` nodes: measured positions, as evenly spread in log2 as they allow."""
    values = np.unique(np.round(feature, 9))
    if len(values) <= most:
        return values
    targets = np.linspace(values[0], values[-1], most)
    nearest = np.abs(values[None, :] - targets[:, None]).argmin(axis=1)
    return values[np.unique(nearest)]


def fit_correction(
    features: Sequence[Array], residual: Array, nodes: Sequence[int],
    stiffness: float = 0.05, pull: float = 0.02, passes: int = 3,
) -> Correction:
    """Fit a grid to residuals by robust, smoothed least squares.

    Minimises Σ w (A g − r)² + stiffness² Σ (second differences)² + pull² Σ g², with Cauchy weights
    w renewed each pass. The pull is what makes nodes without measurements fall back to zero.

    Args:
        features: log2 features of the rows (one array each).
        residual: log(measured / physics) of the rows.
        nodes: most nodes on each axis.
        stiffness, pull: strength of smoothing and of the pull to zero.
        passes: reweighting passes.
    """
    axes = tuple(nodes_for(f, n) for f, n in zip(features, nodes, strict=True))
    matrix = _interpolation_matrix(axes, features)
    smooth = _penalties(tuple(len(a) for a in axes), stiffness, pull)
    penalty = (smooth.T @ smooth).tocsr()
    weight, solution = np.ones(len(residual)), np.zeros(matrix.shape[1])
    for _ in range(passes):
        solution = _solve(matrix, weight, penalty, residual, solution)
        error = residual - matrix @ solution
        spread = max(1.4826 * float(np.median(np.abs(error))), 0.01)
        weight = 1.0 / (1.0 + (error / (2.0 * spread)) ** 2)
    shape = tuple(len(a) for a in axes)
    reached = np.asarray(matrix.sum(axis=0)).reshape(shape) > UNREACHED
    return Correction(axes, _carried(solution.reshape(shape), reached))


# A node with less weight of measurements than this is not measured.
UNREACHED = 1e-3


def _carried(values: Array, reached: NDArray[np.bool_]) -> Array:
    """Return the values with unmeasured nodes taken from the next measured one on the first axis.

    Nearest before, else after, else zero: simpler than what smoothing makes up there, and it packs
    into next to nothing.
    """
    length = len(values)
    index = np.arange(length).reshape(-1, *[1] * (values.ndim - 1))
    before = np.maximum.accumulate(np.where(reached, index, -1), axis=0)
    after = np.minimum.accumulate(np.where(reached, index, length)[::-1], axis=0)[::-1]
    source = np.where(before >= 0, before, after)
    found = np.take_along_axis(values, np.minimum(source, length - 1), axis=0)
    return np.where(source < length, found, 0.0)


# Relative residual at which the iteration stops, and its longest run.
ENOUGH, LONGEST = 1e-4, 150


def _solve(matrix: Any, weight: Array, penalty: Any, target: Array, start: Array) -> Array:
    """Return the solution of (AᵀWA + P) x = AᵀW r by conjugate gradients (Jacobi-scaled)."""
    turned = matrix.T.tocsr()

    def times(x: Array) -> Array:
        return np.asarray(turned @ (weight * (matrix @ x)) + penalty @ x)

    right = turned @ (weight * target)
    scale = 1.0 / (matrix.power(2).T @ weight + penalty.diagonal())
    x, rest = start, right - times(start)
    toward = step = scale * rest
    size, limit = _inner(rest, step), ENOUGH**2 * _inner(right, scale * right)
    for _ in range(LONGEST):
        if size <= limit:
            break
        image = times(toward)
        length = size / _inner(toward, image)
        x, rest = x + length * toward, rest - length * image
        step = scale * rest
        size, before = _inner(rest, step), size
        toward = step + size / before * toward
    return x


def _inner(a: Array, b: Array) -> float:
    # Not BLAS: its threads cost more than these short products where cores are busy.
    return float(np.einsum("i,i", a, b))


def _interpolation_matrix(axes: Sequence[Array], features: Sequence[Array]) -> Any:
    from scipy.sparse import csr_matrix

    rows, shape = len(features[0]), [len(a) for a in axes]
    index, weight = np.zeros((rows, 1), np.intp), np.ones((rows, 1))
    for a, (nodes, feature) in enumerate(zip(axes, features, strict=True)):
        low, share, _ = locate(nodes, feature)
        stride = int(np.prod(shape[a + 1:]))
        ends = _ends(low[:, None] * stride, share[:, None], stride, shape[a])
        index = np.concatenate([index + i for i, _ in ends], axis=1)
        weight = np.concatenate([weight * w for _, w in ends], axis=1)
    pointer = np.arange(rows + 1) * index.shape[1]
    return csr_matrix((weight.ravel(), index.ravel(), pointer), (rows, int(np.prod(shape))))


def _penalties(shape: tuple[int, ...], stiffness: float, pull: float) -> Any:
    from scipy.sparse import diags, eye, kron, vstack

    size = int(np.prod(shape))
    blocks = [pull * eye(size)]
    for axis, length in enumerate(shape):
        if length < 2:
            continue
        if length > 2:
            bend = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(length - 2, length))
        else:
            bend = diags([-1.0, 1.0], [0, 1], shape=(1, 2))
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1:]))
        blocks.append(stiffness * kron(kron(eye(before), bend), eye(after)))
    return vstack(blocks).tocsr()


def encode(correction: Correction, step: float = STEP) -> dict[str, Any]:
    """Return the grid as JSON: axes rounded, values as packed steps.

    Steps are differenced along the first axis in 16 bits (modulo 2^16, which undoes itself), their
    low bytes and then their high ones deflated, and written in base 64.

    Args:
        correction: to encode.
        step: size of a step; doubled should the largest value not fit into 15 bits of them.
    """
    while np.max(np.abs(correction.values), initial=0.0) > 32767 * step:
        step *= 2.0
    steps = np.round(correction.values / step).astype("<i2")
    change = np.diff(steps, axis=0, prepend=np.int16(0)).astype("<i2")
    planes = np.ascontiguousarray(change).view(np.uint8).reshape(-1, 2).T
    data = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return {"axes": [[round(float(x), 3) for x in a] for a in correction.axes],
            "step": step, "values": data}


def decode(data: dict[str, Any]) -> Correction:
    """Return the grid that `encode` wrote."""
    axes = tuple(np.array(a, float) for a in data["axes"])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(data["values"])), np.uint8)
    change = np.ascontiguousarray(planes.reshape(2, -1).T).view("<i2")
    steps = np.cumsum(change.reshape([len(a) for a in axes]), axis=0, dtype=np.int16)
    return Correction(axes, steps.astype(float) * data["step"])
