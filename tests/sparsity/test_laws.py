"""Each published law reproduces figures of its own paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.sparsity.forms import Design, saturating
from costsim.sparsity.laws import (
    law_names,
    load_law,
    matched_dense_loss,
    optimal_dense_loss,
    predict_leverage,
)

pytestmark = pytest.mark.published


def test_every_law_loads_and_names_its_source() -> None:
    assert len(law_names()) >= 8
    for name in law_names():
        law = load_law(name)
        assert law.source and law.loss and law.valid, name


def test_chinchilla_refit_spends_twenty_tokens_a_parameter() -> None:
    """Besiroglu et al. 2024: the refit agrees with about 20 tokens a parameter at 5.76e23 FLOP,
    where the rounded coefficients of Hoffmann et al. ask for several times as many."""
    compute = 5.76e23
    active = np.logspace(9, 12.5, 3501)
    ratio = {}
    for name in ("chinchilla_refit", "chinchilla"):
        loss = load_law(name).predict(Design(active, active, compute / 6 / active))
        ratio[name] = compute / 6 / active[np.argmin(loss)] ** 2
    assert 15 < ratio["chinchilla_refit"] < 28
    assert ratio["chinchilla"] > 2.5 * ratio["chinchilla_refit"]


def test_chinchilla_70b_loss() -> None:
    """L(70e9, 1.4e12) = 1.69 + 406.4/70e9^0.34 + 410.7/1.4e12^0.28 = 1.937."""
    loss = load_law("chinchilla").predict(Design(70e9, 70e9, 1.4e12))
    assert loss == pytest.approx(1.937, abs=0.002)


@pytest.mark.parametrize(
    ("experts", "m", "mu", "n", "nu"),
    [
        (1, 30.3640, -0.1817, 53.9838, -0.1965),
        (2, 27.7982, -0.1780, 66.8401, -0.2065),
        (4, 24.8462, -0.1731, 87.7022, -0.2192),
        (8, 21.8330, -0.1676, 119.9126, -0.2338),
        (16, 19.0159, -0.1617, 167.5073, -0.2494),
        (32, 16.5424, -0.1557, 234.6726, -0.2652),
    ],
)
def test_ludziejewski_table_4(experts: int, m: float, mu: float, n: float, nu: float) -> None:
    """Table 4 gives L = m·N^µ + n·D^ν + 1.3637 for each number of experts."""
    active, tokens = 1e9, 5e10
    expected = m * active**mu + n * tokens**nu + 1.3637
    loss = load_law("ludziejewski").predict(Design(active, active * experts, tokens, experts))
    assert loss == pytest.approx(expected, rel=0.004)


@pytest.mark.parametrize("name", ["clark_s_base", "clark_rl_r", "clark_hash"])
def test_clark_cutoff_where_routing_stops_helping(name: str) -> None:
    """The published cut-off lies within the rounding of the printed coefficients."""
    law = load_law(name)
    assert law.published
    published = law.published["cutoff_parameters"]
    b, c = law.coefficients["b"], law.coefficients["c"]
    lowest = 10 ** (-(b + 0.0005) / (c + 0.0005))
    highest = 10 ** (-(b - 0.0005) / (c - 0.0005))
    assert lowest < published < highest
    below, above = Design(1e9, 64e9, 1.3e11, 64), Design(1e9, 1e9, 1.3e11, 1)
    assert law.predict(below) < law.predict(above)


def test_clark_effective_parameter_count() -> None:
    """Clark et al.: 5M parameters with 128 experts perform like about 55M dense (S-BASE)."""
    law = load_law("clark_s_base")
    dense = np.logspace(6.5, 8.5, 2001)
    target = law.predict(Design(5e6, 64e7, 1.3e11, 128))
    losses = law.predict(Design(dense, dense, 1.3e11, 1))
    matched = dense[np.argmin(np.abs(losses - target))]
    assert 40e6 < matched < 75e6


@pytest.mark.parametrize(
    ("base", "tokens", "granularity", "loss"),
    [
        (1e8, 4.37e9, 8, 3.133),
        (1e9, 28.94e9, 16, 2.491),
        (3e9, 72.90e9, 16, 2.245),
        (7e9, 137.60e9, 32, 2.076),
        (7e10, 941.07e9, 32, 1.694),
        (3e11, 2.96e12, 64, 1.503),
        (1e12, 7.94e12, 64, 1.367),
    ],
)
def test_krajewski_table_2(base: float, tokens: float, granularity: int, loss: float) -> None:
    """Losses of the compute-optimal models; the printed exponents carry three digits."""
    design = Design(base, 64 * base, tokens, 64, granularity)
    assert load_law("krajewski").predict(design) == pytest.approx(loss, rel=0.03)


def test_tian_leverage_at_1e22() -> None:
    """More than 7x at 1e22 FLOP with 3.1 % active and granularity 12, and an optimum near 12."""
    law = load_law("tian")
    active = 0.85e9
    granularity = np.arange(2, 33)
    design = Design(active, active / 0.031, 1e22 / 6 / active, 1 / 0.031, granularity)
    leverage = predict_leverage(law, design)
    assert leverage[10] == pytest.approx(7.2, abs=0.3)
    assert 8 <= granularity[np.argmax(leverage)] <= 14
    assert predict_leverage(law, Design(1e9, 1e9, 1e12, 1)) == 1.0


def test_abnar_optimal_sparsity_rises_with_size() -> None:
    """Abnar et al.: at fixed compute the best sparsity rises with the total parameters."""
    law = load_law("abnar")
    compute = 1e20
    kept = 1 - np.array([0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])
    best = []
    for total in (1e9, 1e10, 5e10):
        active = total * kept
        loss = law.predict(Design(active, total, compute / 6 / active, 1 / kept))
        best.append(int(np.argmin(loss)))
    assert best == sorted(best)
    assert best[-1] > best[0]


@given(st.floats(1.0, 1e4))
def test_saturating_experts_start_and_never_pass_the_maximum(experts: float) -> None:
    e = float(saturating(experts, 1.847, 314.478))
    assert 1.847 * (1 - 1e-9) <= e <= 314.478


@given(st.floats(7.0, 12.0), st.floats(9.0, 13.5))
def test_more_data_and_size_never_hurt(log_n: float, log_d: float) -> None:
    for name in ("chinchilla_refit", "ludziejewski", "krajewski"):
        law = load_law(name)
        n, d = 10**log_n, 10**log_d
        base = law.predict(Design(n, n, d))
        assert law.predict(Design(2 * n, 2 * n, d)) <= base
        assert law.predict(Design(n, n, 2 * d)) <= base


def test_error_widens_outside_the_range_and_says_so() -> None:
    law = load_law("ludziejewski")
    inside = Design(1e9, 4e9, 5e10, 4)
    outside = Design(2.8e11, 1.8e12, 1.3e13, 8)
    assert law.warning(inside) == ""
    assert "extrapolated" in law.warning(outside)
    assert law.total_log_error(outside) > 3 * law.total_log_error(inside)


def test_leverage_law_asked_for_a_loss() -> None:
    with pytest.raises(InputError, match="leverage"):
        load_law("tian").predict(Design(1e9, 1e10, 1e11, 10))
    dense = load_law("chinchilla_refit")
    sparse = matched_dense_loss(load_law("tian"), dense, Design(1e9, 3e10, 1e12, 30, 12))
    assert sparse < optimal_dense_loss(dense, 6e21)[0]


def test_unknown_law_is_suggested() -> None:
    with pytest.raises(InputError, match="did you mean 'krajewski'"):
        load_law("krajevski")


def test_unverified_coefficients_widen_the_interval() -> None:
    law = load_law("ludziejewski")
    design = Design(1e9, 4e9, 5e10, 4)
    doubtful = replace(law, provenance="unverified")
    assert doubtful.total_log_error(design) == pytest.approx(2 * law.total_log_error(design))
