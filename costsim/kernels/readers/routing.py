"""Loads of experts under the routing distributions that kernel tables were measured with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 24


@lru_cache(maxsize=65536)
def power_law_load(
    tokens: int, top_k: int, experts: int, ep: int, exponent: float
) -> tuple[float, float]:
    """Return touched experts and relative load of the most loaded rank, on average over draws.

    Token counts of experts are drawn from a bounded power law (density x^-exponent on [1, 0.8 T],
    or [0.01, 2] where tokens are few), scaled to T·k and rounded: the procedure by which the
    published MoE tables were measured, with the most loaded rank timed.

    Args:
        tokens: entering the layer in the whole group.
        top_k, experts: routed experts per token and in total.
        ep: ranks the experts are spread over.
        exponent: of the power law.
    """
    rng = np.random.default_rng(20240613)
    low, high = (1.0, tokens * 0.8) if tokens * top_k > experts else (0.01, 2.0)
    high = max(high, low * 1.001)
    power = 1.0 - exponent
    u = rng.random((DRAWS, experts))
    weight = ((high**power - low**power) * u + low**power) ** (1.0 / power)
    share = weight / weight.sum(axis=1, keepdims=True)
    rounded = np.minimum(np.round(share * tokens * top_k), tokens)
    counts = _made_whole(rounded, share, tokens * top_k)
    ranks = counts[:, : experts // ep * ep].reshape(DRAWS, ep, -1)
    load = ranks.sum(axis=2)
    slowest = load.argmax(axis=1)
    touched = (ranks > 0).sum(axis=2)[np.arange(DRAWS), slowest]
    most = load[np.arange(DRAWS), slowest]
    mean = tokens * top_k / ep
    return max(float(touched.mean()), 1.0), max(float(most.mean()) / mean, 1.0 / mean)


def _made_whole(counts: Array, share: Array, total: int) -> Array:
    """Return the counts with what rounding lost dealt out again, largest experts first."""
    experts = counts.shape[1]
    missing = np.maximum(total - counts.sum(axis=1, keepdims=True), 0.0)
    rank = (-share).argsort(axis=1).argsort(axis=1)
    return counts + missing // experts + (rank < missing % experts)


def balanced_load(tokens: int, top_k: int, experts: int, ep: int) -> tuple[float, float]:
    """Return touched experts and relative load of a rank when tokens are dealt out evenly.

    Where there are fewer token-expert pairs than ranks, the busy ranks hold one pair each.
    """
    pairs = tokens * top_k
    mean = pairs / ep
    return max(min(experts, pairs) / ep, 1.0), max(1.0, 1.0 / mean)
