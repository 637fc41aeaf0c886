"""Kernels in NumPy (BLAS), always there: float32 only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Call = Callable[[], object]
# Weights are taken from as many different places as the last-level cache holds three times over:
# in a model a layer's weights come from memory, since all other layers ran in between.
CACHE_MULTIPLE = 3.0
MOST_COPIES = 64


class NumpyBackend:
    """NumPy with its BLAS.

    Args:
        cache_bytes: last-level cache, which weights must not stay in.
    """

    name, device = "numpy", "cpu"
    dtypes: tuple[str, ...] = ("fp32",)

    def __init__(self, cache_bytes: float = 32e6, seed: int = 0) -> None:
        self.cache_bytes = cache_bytes
        self.random = np.random.default_rng(seed)
        few = self.random.standard_normal(1 << 16, dtype=np.float32)
        self.pool = np.tile(few, max(4, int(CACHE_MULTIPLE * cache_bytes / few.nbytes) + 1))
        self.at = 0

    def synchronise(self) -> None:
        """Do nothing: NumPy has finished when it returns."""

    def take(self, *shape: int) -> Array:
        """Return an array from the pool, at another place each time."""
        size = int(np.prod(shape))
        if size > self.pool.size:
            self.pool = np.resize(self.pool, size)
        if self.at + size > self.pool.size:
            self.at = 0
        found = self.pool[self.at:self.at + size].reshape(shape)
        self.at += size
        return found

    def fresh(self, *shape: int) -> Array:
        """Return an array of its own, as activations are: in cache where they fit."""
        return np.resize(self.pool[: 1 << 16], shape)

    def copies(self, size_bytes: float) -> int:
        """Return how many copies of a weight leave the cache between two uses of one."""
        wanted = int(np.ceil(CACHE_MULTIPLE * self.cache_bytes / max(size_bytes, 1.0)))
        return max(1, min(MOST_COPIES, wanted))

    def prepare(self, operator: str, shape: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
        """Return a kernel ready to be called, and shape columns that only the data decide."""
        return _KERNELS[operator](self, shape)


def _gemm(b: NumpyBackend, s: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
    m, n, k = s["m"], s["n"], s["k"]
    x, out = b.fresh(m, k), np.empty((m, n), np.float32)
    # Stored as (n, k) and used transposed, as the layers of checkpoints are.
    weights = cycle([b.take(n, k).T for _ in range(b.copies(4.0 * n * k))])
    return lambda: np.matmul(x, next(weights), out=out), {}


def _softmax(scores: Array) -> Array:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _attention_prefill(b: NumpyBackend, s: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
    batch, kv, dim, q = s["batch"], s["kv_heads"], s["head_dim"], s["new_tokens"]
    group, seen = s["heads"] // kv, s["new_tokens"] + s["context"]
    query = b.fresh(batch, kv, group * q, dim)
    key, value = b.fresh(batch, kv, seen, dim), b.fresh(batch, kv, seen, dim)
    hidden = np.triu(np.full((q, seen), -1e9, np.float32), 1 + s["context"])

    def run() -> Array:
        scores = np.matmul(query, key.swapaxes(-1, -2)).reshape(batch, kv, group, q, seen)
        scores += hidden
        weights = _softmax(scores).reshape(batch, kv, group * q, seen)
        return np.matmul(weights, value)

    return run, {}


def _attention_decode(b: NumpyBackend, s: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
    batch, kv, dim, seen = s["batch"], s["kv_heads"], s["head_dim"], s["context"]
    query = b.fresh(batch, kv, s["heads"] // kv, dim)
    count = b.copies(8.0 * batch * kv * seen * dim)
    caches = cycle([(b.take(batch, kv, seen, dim), b.take(batch, kv, seen, dim))
                    for _ in range(count)])

    def run() -> Array:
        key, value = next(caches)
        return np.matmul(_softmax(np.matmul(query, key.swapaxes(-1, -2))), value)

    return run, {}


def routed(random: np.random.Generator, tokens: int, experts: int, top_k: int) -> NDArray[Any]:
    """Return the experts of each token under uniform routing, shape (tokens, top_k)."""
    return np.argsort(random.random((tokens, experts)), axis=1)[:, :top_k]


def _moe(b: NumpyBackend, s: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
    hidden, width, experts = s["hidden"], s["width"], s["experts"]
    chosen = routed(b.random, s["tokens"], experts, s["top_k"])
    hit = [(e, np.flatnonzero((chosen == e).any(axis=1))) for e in np.unique(chosen)]
    x = b.fresh(s["tokens"], hidden)
    sets = cycle([[(b.take(2 * width, hidden).T, b.take(hidden, width).T)
                   for _ in range(experts)]
                  for _ in range(min(8, b.copies(12.0 * hidden * width * len(hit))))])

    def run() -> Array:
        out = np.zeros_like(x)
        weights = next(sets)
        for expert, rows in hit:
            up, down = weights[expert]
            both = x[rows] @ up
            gate = both[:, :width]
            both[:, width:] *= gate / (1.0 + np.exp(-gate))
            out[rows] += both[:, width:] @ down
        return out

    return run, {"touched": float(len(hit))}


def _elementwise(b: NumpyBackend, s: Mapping[str, Any]) -> tuple[Call, dict[str, Any]]:
    size = max(1, int(s["bytes"]) // 8)
    source, target = b.take(size), np.empty(size, np.float32)
    return lambda: np.copyto(target, source), {}


_KERNELS: dict[str, Callable[[NumpyBackend, Mapping[str, Any]], tuple[Call, dict[str, Any]]]] = {
    "gemm": _gemm, "attention_prefill": _attention_prefill,
    "attention_decode": _attention_decode, "moe": _moe, "elementwise": _elementwise,
}
