"""Fits a correction: smoothed, robust least squares on a grid in log2 space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costsim.kernels.correction import Array, Correction, ends, locate


def nodes_for(feature: Array, most: int) -> Array:
    """Return at most ``most`` nodes: measured positions, as evenly spread in log2 as they allow.

    None at all is for a feature that the correction does not depend on.
    """
    values = np.unique(np.round(feature, 9))
    if most == 0:
        return np.zeros(0)
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
    w renewed each pass. Nodes without measurements are left open.

    Args:
        features: log2 features of the rows (one array each).
        residual: log(measured / physics) of the rows.
        nodes: most nodes on each axis.
        stiffness, pull: strength of smoothing and of the pull to zero.
        passes: reweighting passes.
    """
    axes = tuple(nodes_for(f, n) for f, n in zip(features, nodes, strict=True))
    matrix = _interpolation_matrix(axes, features)
    shape = tuple(max(len(a), 1) for a in axes)
    smooth = _penalties(shape, stiffness, pull)
    penalty = (smooth.T @ smooth).tocsr()
    weight, solution = np.ones(len(residual)), np.zeros(matrix.shape[1])
    for _ in range(passes):
        solution = _solve(matrix, weight, penalty, residual, solution)
        error = residual - matrix @ solution
        spread = max(1.4826 * float(np.median(np.abs(error))), 0.01)
        weight = 1.0 / (1.0 + (error / (2.0 * spread)) ** 2)
    reached = np.asarray(matrix.sum(axis=0)).reshape(shape) > UNREACHED
    return Correction(axes, np.where(reached, solution.reshape(shape), np.nan))


# A node with less weight of measurements than this is not measured.
UNREACHED = 1e-3


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

    rows, shape = len(features[0]), [max(len(a), 1) for a in axes]
    index, weight = np.zeros((rows, 1), np.intp), np.ones((rows, 1))
    for a, (nodes, feature) in enumerate(zip(axes, features, strict=True)):
        if len(nodes) == 0:
            continue
        low, share, _ = locate(nodes, feature)
        stride = int(np.prod(shape[a + 1:]))
        pair = ends(low[:, None] * stride, share[:, None], stride, shape[a])
        index = np.concatenate([index + i for i, _ in pair], axis=1)
        weight = np.concatenate([weight * w for _, w in pair], axis=1)
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
