"""Experts touched and the slowest rank's load, against closed forms and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.kernels.work import touched_experts
from costsim.ops.routing import (
    expected_maximum_load,
    expert_load,
    expert_probabilities,
    inclusion_probabilities,
    rank_loads,
    skewed_touched,
)


def sampled(
    tokens: int, top_k: int, experts: int, ep: int, probabilities: np.ndarray | None = None,
    runs: int = 200,
) -> tuple[float, float]:
    """Load of the fullest rank over the mean, and its distinct experts, by Monte Carlo."""
    random = np.random.default_rng(1)
    loads, touched = [], []
    for _ in range(runs):
        keys = random.gumbel(size=(tokens, experts))
        if probabilities is not None:
            keys += np.log(probabilities)
        chosen = np.argpartition(-keys, top_k - 1, axis=1)[:, :top_k]
        counts = np.bincount(chosen.ravel(), minlength=experts).reshape(ep, -1)
        fullest = counts.sum(axis=1).argmax()
        loads.append(counts.sum(axis=1).max() / (tokens * top_k / ep))
        touched.append((counts[fullest] > 0).sum())
    return float(np.mean(loads)), float(np.mean(touched))


@pytest.mark.published
@pytest.mark.parametrize(
    ("experts", "top_k", "tokens", "expected"),
    [(128, 8, 1, 8.0), (128, 8, 8, 51.6), (128, 8, 64, 125.9), (8, 2, 4, 5.47)],
)
def test_touched_experts_of_uniform_routing(
    experts: int, top_k: int, tokens: int, expected: float
) -> None:
    assert touched_experts(tokens, top_k, experts) == pytest.approx(expected, abs=0.05)


@pytest.mark.theory
@pytest.mark.parametrize("ep", [2, 8, 32])
@pytest.mark.parametrize("tokens", [4, 32, 256])
@pytest.mark.parametrize(("experts", "top_k"), [(128, 8), (256, 8), (32, 4)])
def test_slowest_rank_against_monte_carlo(
    experts: int, top_k: int, tokens: int, ep: int
) -> None:
    load, touched = sampled(tokens, top_k, experts, ep)
    predicted_touched, predicted_load = expert_load(tokens, top_k, experts, ep)
    assert predicted_load == pytest.approx(load, rel=0.10)
    assert predicted_touched == pytest.approx(touched, rel=0.10)


@pytest.mark.theory
@pytest.mark.parametrize("tokens", [16, 256])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_skewed_routing_touches_as_sampled(tokens: int, alpha: float) -> None:
    p = expert_probabilities("power_law", 64, alpha)
    _, touched = sampled(tokens, 4, 64, 1, p)
    predicted = skewed_touched(inclusion_probabilities(p, 4), tokens)
    assert predicted == pytest.approx(touched, rel=0.10)


def test_one_rank_is_exact() -> None:
    touched, load = expert_load(np.array([1, 8, 64]), 8, 128, 1)
    assert touched == pytest.approx(touched_experts(np.array([1, 8, 64]), 8, 128))
    assert np.all(load == 1.0)


def test_replicas_lower_the_slowest_rank() -> None:
    skew = {"kind": "power_law", "alpha": 1.0}
    plain = expert_load(4096, 8, 128, 16, **skew)[1]
    balanced = expert_load(4096, 8, 128, 16, replicas=16, **skew)[1]
    uniform = expert_load(4096, 8, 128, 16)[1]
    assert uniform < balanced < plain


def test_measured_counts_equal_to_uniform_are_uniform() -> None:
    counts = tuple([10.0] * 64)
    even = expert_load(512, 4, 64, 8, "measured", counts=counts)[1]
    assert even == pytest.approx(expert_load(512, 4, 64, 8)[1], rel=1e-9)


@pytest.mark.theory
def test_measured_counts_lie_on_ranks_by_number() -> None:
    """Rank 1 holds experts 4 to 7 and gets 30 of 60 pairs: 2 x the mean of four ranks."""
    counts = (1.0, 2.0, 3.0, 4.0, 9.0, 7.0, 8.0, 6.0, 4.0, 1.0, 5.0, 0.0, 2.0, 3.0, 4.0, 1.0)
    load = expert_load(1e8, 1, 16, 4, "measured", counts=counts)[1]
    assert load == pytest.approx(30 / 60 * 4, rel=1e-3)
    apart = expert_load(1e8, 1, 16, 4, "measured", counts=counts, replicas=4)[1]
    assert apart == pytest.approx(1.0, abs=0.08)


@given(st.integers(1, 5000), st.sampled_from([1, 2, 4, 8, 16, 64]))
def test_load_is_between_balanced_and_all_on_one_rank(tokens: int, ep: int) -> None:
    touched, load = expert_load(tokens, 4, 64, ep)
    assert 1.0 <= load <= ep
    assert 0.0 < touched <= 64 / ep + 1e-9


@given(st.integers(4, 40), st.floats(0.0, 2.0), st.integers(1, 4))
def test_inclusion_probabilities_sum_to_top_k(experts: int, alpha: float, top_k: int) -> None:
    chance = inclusion_probabilities(expert_probabilities("power_law", experts, alpha), top_k)
    assert chance.sum() == pytest.approx(top_k, rel=1e-6)
    assert np.all((chance >= 0) & (chance <= 1 + 1e-12))


@given(st.integers(2, 64), st.integers(0, 8))
def test_rank_loads_keep_the_whole(experts: int, replicas: int) -> None:
    shares = rank_loads(expert_probabilities("power_law", experts, 1.0), 4, replicas)
    assert shares.sum() == pytest.approx(1.0)


@pytest.mark.theory
def test_large_loads_approach_balance() -> None:
    assert expected_maximum_load(1e8, 64) == pytest.approx(1.0, abs=1e-3)
