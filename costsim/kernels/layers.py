"""What single layers differ by from the correction that all layers of a kernel share.

Expert kernels are tuned layer by layer: of two layers of nearly the same sizes one may have a
configuration of its own and the other not, which no smooth function of the sizes tells. A layer
that was measured gets a factor of its own, over the tokens; others keep what the sizes say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.kernels.correction import Array, locate

# Arguments that make a layer, and the one along which its factor runs.
LAYERS: dict[str, tuple[tuple[str, ...], str]] = {
    "moe": (("hidden", "width", "top_k", "experts", "moe_tp", "ep", "gated"), "tokens")}


# Arguments of at most so many values are remembered with the rows found for them, of so many calls.
REMEMBERED, MOST_CALLS = 1024, 256


@dataclass(frozen=True)
class Layers:
    """Factors of layers.

    Args:
        columns: arguments that make a layer.
        along: argument along which the factors run.
        keys: their values, one row a layer.
        nodes: log2 positions along the last argument.
        values: log factors, one row a layer and one column a node.
    """

    columns: tuple[str, ...]
    along: str
    keys: Array
    nodes: Array
    values: Array

    def at(self, shape: Mapping[str, Any]) -> Any:
        """Return the log factor of a call; zero for a layer that was not measured."""
        row = self._row(shape)
        x = np.log2(np.maximum(np.asarray(shape[self.along], float), 1.0))
        low, share, _ = locate(self.nodes, x)
        if np.ndim(row) == 0:
            own = self._padded[int(row)]
            if not own.any():
                return 0.0
            lower = own.take(low)
            return lower + (own.take(low + 1) - lower) * share
        start = row * self._padded.shape[1] + low
        flat = self._padded.reshape(-1)
        lower = flat.take(start)
        return lower + (flat.take(start + 1) - lower) * share

    @cached_property
    def _padded(self) -> Array:
        """Values with a row of zeros at the end, for the layers that are not there."""
        return np.vstack([self.values, np.zeros((1, self.values.shape[1]))])

    @cached_property
    def _rows(self) -> dict[tuple[float, ...], int]:
        return {tuple(key): row for row, key in enumerate(self.keys.tolist())}

    def _row(self, shape: Mapping[str, Any]) -> Any:
        """Return the row of a call's layer, the one past the last if it was not measured."""
        given = [shape.get(c, 1.0) for c in self.columns]
        if not any(isinstance(v, np.ndarray) and v.size > 1 for v in given):
            one = tuple(v.item() if isinstance(v, np.ndarray) else float(v) for v in given)
            return self._rows.get(one, len(self.keys))
        wanted = [np.asarray(v, float) for v in given]
        # A search asks for the same layouts call after call.
        call = tuple((w.shape, w.tobytes()) for w in wanted if w.size <= REMEMBERED)
        if len(call) < len(wanted):
            return self._rows_of(wanted)
        if call not in self._found:
            if len(self._found) >= MOST_CALLS:
                self._found.clear()
            self._found[call] = self._rows_of(wanted)
        return self._found[call]

    @cached_property
    def _found(self) -> dict[tuple[Any, ...], NDArray[np.intp]]:
        return {}

    def _rows_of(self, wanted: list[Array]) -> NDArray[np.intp]:
        places = np.broadcast_arrays(*wanted)
        keys, inverse = np.unique(np.stack([p.ravel() for p in places], axis=1), axis=0,
                                  return_inverse=True)
        rows = np.array([self._rows.get(tuple(k), len(self.keys)) for k in keys.tolist()])
        return rows[inverse.reshape(-1)].reshape(places[0].shape)


# Nodes along the tokens; pull to no factor, and stiffness along the tokens, in rows.
NODES, PULL, STIFFNESS = 3, 2.0, 2.0
# Fewer rows than this many a layer say nothing of it.
FEWEST_ROWS = 8
PASSES = 4


def fit_layers(operator: str, shape: Mapping[str, Any], residual: Array) -> Layers | None:
    """Return the factors that layers need beyond the correction, by robust ridge regression.

    Args:
        operator: of the rows; shape: their arguments, arrays or scalars.
        residual: log(measured / predicted) of the rows.
    """
    if operator not in LAYERS:
        return None
    columns, along = LAYERS[operator]
    rows = len(residual)
    given = np.stack([np.broadcast_to(np.asarray(shape.get(c, 1.0), float), rows)
                      for c in columns], axis=1)
    keys, layer = np.unique(given, axis=0, return_inverse=True)
    if len(keys) < 2 or rows < FEWEST_ROWS * len(keys):
        return None
    x = np.log2(np.maximum(np.broadcast_to(np.asarray(shape[along], float), rows), 1.0))
    nodes: Array = np.round(np.linspace(x.min(), x.max(), NODES), 3).astype(float)
    if nodes[0] == nodes[-1]:
        return None
    values = _ridge(layer.reshape(-1), len(keys), locate(nodes, x)[:2], residual)
    return Layers(columns, along, keys, nodes, values)


def _ridge(
    layer: NDArray[np.intp], layers: int, place: tuple[Any, Any], residual: Array
) -> Array:
    """Return the values at the nodes of each layer: hat functions, Cauchy weights each pass.

    Weights come from passes without a pull: a layer far from the others is no outlier.
    """
    low, share = place
    ends = ((low, 1.0 - share), (low + 1, share))
    bend = np.diff(np.eye(NODES), axis=0)
    smooth = STIFFNESS * bend.T @ bend
    weight: Array = np.ones(len(residual))
    values: Array = np.zeros((layers, NODES))
    for pull in (*[1e-3] * (PASSES - 1), PULL):
        matrix, right = np.zeros((layers, NODES, NODES)), np.zeros((layers, NODES))
        for i, a in ends:
            np.add.at(right, (layer, i), weight * a * residual)
            for j, b in ends:
                np.add.at(matrix, (layer, i, j), weight * a * b)
        matrix += pull * np.eye(NODES) + smooth
        values = np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0], float)
        error = residual - sum(values[layer, i] * a for i, a in ends)
        spread = max(1.4826 * float(np.median(np.abs(error))), 0.01)
        weight = 1.0 / (1.0 + (error / (2.0 * spread)) ** 2)
    return values
