"""How tokens spread over experts and ranks: distinct experts touched, load of the slowest rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Grid on which skewed routing is tabulated; in between, interpolation in log tokens.
_TOKEN_GRID = np.unique(np.round(np.logspace(0, 6, 61)))
# Below this mean load the largest of the ranks' loads is summed term by term.
_FEW_PAIRS, _POISSON_TERMS = 2.0, 16
# Random placements of experts on ranks that the fullest rank's share is averaged over.
_PLACEMENTS = 64


def expert_probabilities(
    kind: str, experts: int, alpha: float = 0.0, counts: Sequence[float] = ()
) -> NDArray[np.float64]:
    """Return the share of token-expert pairs of each expert.

    Measured ones are in the order of the experts' numbers, those of a power law most popular first.

    Args:
        kind: ``uniform``, ``power_law`` (p_i ∝ i^-alpha) or ``measured``.
        experts: number of routed experts.
        alpha: exponent of the power law.
        counts: measured tokens per expert.
    """
    if kind == "measured" and len(counts):
        p = np.asarray(counts, float)
    elif kind == "power_law":
        p = np.arange(1, experts + 1, dtype=float) ** -alpha
    else:
        p = np.ones(experts)
    return p / p.sum()


def inclusion_probabilities(p: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """Return the chance that a token uses each expert, k of them without replacement.

    Scales k·p and caps it at one, giving the excess to the others, until the sum is k.
    """
    target = float(min(top_k, len(p)))
    chance = np.minimum(target * p, 1.0)
    for _ in range(50):
        missing = target - chance.sum()
        free = chance < 1.0
        if missing < 1e-12 or not free.any():
            break
        weight = p * free
        chance = np.minimum(chance + missing * weight / max(weight.sum(), 1e-30), 1.0)
    return chance


def skewed_touched(chance: NDArray[np.float64], tokens: Any) -> Any:
    """Return distinct experts touched when each is used by a token with its own chance."""
    t = np.asarray(tokens, float)
    missed = np.log1p(-np.minimum(chance, 1.0 - 1e-12))
    table = np.array([np.sum(-np.expm1(n * missed)) for n in _TOKEN_GRID])
    return np.interp(np.log(np.maximum(t, 1e-9)), np.log(_TOKEN_GRID), table) * np.minimum(t, 1.0)


def expected_maximum_load(mean: Any, ranks: Any, share_variance: Any = 1.0) -> Any:
    """Return the expected largest load of ``ranks`` ranks over their mean load.

    The pairs that reach a rank are close to Poisson with the mean given. For means above
    `_FEW_PAIRS` the largest of n loads is m + z·√m + (z² − 1)/6, z being the expected largest of n
    normals (Blom 1958) and the last term the Cornish-Fisher correction for the skew; below, it is
    summed exactly, Σ_j 1 − F(j)^n. Within 10 % of Monte Carlo (tests/ops/test_routing.py).

    Args:
        mean: token-expert pairs per rank.
        ranks: ranks that share the experts.
        share_variance: variance of a rank's load over that of Poisson.
    """
    from scipy.special import ndtri

    m = np.maximum(np.asarray(mean, float), 1e-9)
    n = np.maximum(np.asarray(ranks, float), 1.0)
    z = ndtri((n - 0.375) / (n + 0.25))
    largest = m + z * np.sqrt(m * share_variance) + (z * z - 1.0) / 6.0
    few = (m < _FEW_PAIRS) & (n > 1)
    if few.any():
        largest = np.array(largest)
        largest[few] = _largest_poisson(np.broadcast_to(m, few.shape)[few],
                                        np.broadcast_to(n, few.shape)[few])
    return np.where(n > 1, np.clip(largest / m, 1.0, n), 1.0)


def _largest_poisson(mean: Any, ranks: Any) -> Any:
    """Return the expected largest of ``ranks`` Poisson variables with a small mean."""
    term = np.exp(-mean)
    below, largest = term, 1.0 - term**ranks
    for j in range(1, _POISSON_TERMS):
        term = term * mean / j
        below = np.minimum(below + term, 1.0)
        largest = largest + 1.0 - below**ranks
    return largest


def rank_loads(p: NDArray[np.float64], ep: int, replicas: int = 0) -> NDArray[np.float64]:
    """Return each rank's share of the pairs, experts dealt out by popularity, the largest first.

    Args:
        p: share of each expert.
        ep: ranks.
        replicas: extra copies given to the most popular experts, each halving its share.
    """
    loads = list(p)
    for _ in range(replicas):
        hottest = int(np.argmax(loads))
        loads[hottest] /= 2.0
        loads.append(loads[hottest])
    ordered = np.sort(np.asarray(loads))[::-1]
    ranks = np.zeros(ep)
    # Longest processing time first, as expert-placement balancers (EPLB) do.
    for load in ordered:
        ranks[int(np.argmin(ranks))] += load
    return ranks


def expert_load(
    tokens: Any, top_k: int, experts: int, ep: Any, kind: str = "uniform", alpha: float = 0.0,
    counts: Sequence[float] = (), replicas: int = 0,
) -> tuple[Any, Any]:
    """Return distinct experts touched on the slowest rank, and its load over the mean.

    Args:
        tokens: tokens entering the layer.
        top_k, experts: routing.
        ep: expert-parallel ranks (array).
        kind, alpha, counts: as in `expert_probabilities`; ``balanced`` is uniform routing
            without its chance fluctuations, every rank having the mean load.
        replicas: extra copies of the hottest experts, which are then placed to balance the ranks;
            without them experts lie by number: as counted where they are measured, else at random.
    """
    t, ranks = np.asarray(tokens, float), np.asarray(ep, float)
    local = experts / ranks
    if kind == "balanced":
        return _touched_on(local, top_k / experts, t), np.ones_like(t / ranks)
    noise = expected_maximum_load(t * top_k / ranks, ranks)
    # A token sends a rank no more pairs than it has experts.
    noise = np.clip(noise, 1.0, np.maximum(ranks * np.minimum(local / top_k, 1.0), 1.0))
    if kind == "uniform":
        return _touched_on(local, top_k * noise / experts, t), noise
    p = expert_probabilities(kind, experts, alpha, counts)
    chance = inclusion_probabilities(p, top_k)
    worst, busiest = _slowest_rank(chance, ranks, replicas, kind == "measured")
    load = np.maximum(worst, 1.0) * noise
    touched = np.minimum(skewed_touched(chance, t) / ranks, _touched_on(local, busiest, t))
    return np.minimum(touched * np.sqrt(noise), local), load


def _touched_on(local: Any, chance: Any, tokens: Any) -> Any:
    """Return distinct experts touched among ``local`` ones, each used with the same chance."""
    missed = np.log1p(-np.minimum(chance, 1.0 - 1e-12))
    return local * -np.expm1(np.asarray(tokens, float) * missed)


def _unplaced_maximum(share: NDArray[np.float64], ep: int) -> float:
    """Return the fullest rank's share where experts lie by number and not by popularity."""
    order = np.random.default_rng(0).permuted(np.tile(share, (_PLACEMENTS, 1)), axis=1)
    return float(order.reshape(_PLACEMENTS, ep, -1).sum(axis=2).max(axis=1).mean())


def _slowest_rank(
    chance: NDArray[np.float64], ranks: Any, replicas: int, numbered: bool
) -> tuple[Any, Any]:
    """Return the fullest rank's share of the pairs over the mean, and its mean chance of use."""
    found = {}
    share = chance / chance.sum()
    for n in np.unique(ranks):
        if replicas:
            fullest = float(rank_loads(share, int(n), replicas).max())
        elif numbered:
            fullest = float(share.reshape(int(n), -1).sum(axis=1).max())
        else:
            fullest = _unplaced_maximum(share, int(n))
        found[float(n)] = fullest * float(n)
    worst = np.vectorize(found.__getitem__, otypes=[float])(np.asarray(ranks, float))
    return worst, worst * chance.sum() / len(chance)
