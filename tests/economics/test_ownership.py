"""Ownership and energy against closed forms and published costs of owning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.economics.energy import carbon_kg_per_hour, load_region, power_w
from costsim.economics.ownership import annuity, load_terms, ownership
from costsim.economics.query import split, token_price, usd_per_million_tokens, usd_per_query
from costsim.errors import InputError
from costsim.hardware import Hardware
from costsim.hardware.loader import load_hardware


@pytest.mark.theory
@given(
    st.floats(0.0, 0.5), st.integers(1, 20), st.floats(0.0, 1.0)
)  # fmt: skip
def test_annuity_pays_the_capital_back(rate: float, life: int, residual: float) -> None:
    """The payments and the residual, discounted, are worth the capital at the start."""
    payment = float(annuity(rate, life, residual))
    worth = sum(payment / (1 + rate) ** year for year in range(1, life + 1))
    assert worth + residual / (1 + rate) ** life == pytest.approx(1.0, rel=1e-6)


def test_annuity_known_value() -> None:
    assert annuity(0.08, 5) == pytest.approx(0.250456, abs=1e-6)  # tables of the capital recovery
    with pytest.raises(InputError, match="life must be > 0"):
        annuity(0.08, 0)


def test_ownership_parts_add_up_and_broadcast(accelerator: Hardware) -> None:
    cost = ownership(accelerator, activity=np.array([0.0, 0.5, 1.0]))
    assert np.allclose(sum(cost.breakdown.values()), cost.usd_per_hour)
    assert np.all(np.diff(cost.usd_per_hour) > 0)
    assert np.allclose(np.diff(cost.fixed_usd_per_hour), 0)


def test_what_is_not_sold_cannot_be_bought(accelerator: Hardware) -> None:
    with pytest.raises(InputError, match="cannot be bought"):
        ownership(accelerator.with_fields(list_price_usd=0.0))


@pytest.mark.published
def test_cost_of_owning_an_h100_near_published(accelerator: Hardware) -> None:
    """SemiAnalysis gives $1.30/h (hyperscaler) to $1.69/h (neocloud) for H100, April 2026.

    Bought at $31,250 (marketplace.uvation.com, March 2025), server share of a $310,000 node.
    """
    h100 = accelerator.with_fields(
        list_price_usd=31250.0, server_price_usd_per_accelerator=310e3 / 8 - 31250.0,
        server_w_per_accelerator=575.0,
    )  # fmt: skip
    cost = float(ownership(h100).usd_per_hour)
    assert 1.30 / 1.15 <= cost <= 1.69 * 1.15
    twice = float(ownership(h100.with_fields(list_price_usd=62500.0)).usd_per_hour)
    assert not 1.30 / 1.15 <= twice <= 1.69 * 1.15, "a doubled price must be caught"


def test_power_and_carbon_follow_activity(accelerator: Hardware) -> None:
    assert power_w(accelerator, 0.0, server=False) == 100.0
    assert power_w(accelerator, 1.0) == 1200.0
    assert power_w(accelerator, 0.5, server=False) == 400.0
    region = load_region("sweden")
    assert carbon_kg_per_hour(accelerator, region, 1.0) == pytest.approx(1.2 * 1.54 * 0.040695)
    with pytest.raises(InputError, match="did you mean 'sweden'"):
        load_region("swedn")


def test_changed_terms_change_the_cost(accelerator: Hardware) -> None:
    base = float(ownership(accelerator).usd_per_hour)
    assert float(ownership(accelerator, life_years=3.0).usd_per_hour) > base
    assert float(ownership(accelerator, residual_share=0.3).usd_per_hour) < base
    assert load_terms(life_years=3.0).life_years == 3.0


positive = st.floats(1e-3, 1e4)


@given(positive, positive, st.floats(1, 1e5), st.floats(1, 1e5), st.floats(0, 1))
def test_input_and_output_add_up_to_the_query(
    usd_per_hour: float, rate: float, isl: float, osl: float, share: float
) -> None:
    price = token_price(usd_per_hour, rate, isl, osl, share)
    parts = (price.usd_per_million_input_tokens * isl
             + price.usd_per_million_output_tokens * osl) / 1e6  # fmt: skip
    assert parts == pytest.approx(float(price.usd_per_query))
    assert price.usd_per_million_tokens * (isl + osl) / 1e6 == pytest.approx(parts)


def test_hand_computed_price_of_a_query() -> None:
    assert usd_per_query(36.0, 2.0) == pytest.approx(0.005)
    assert usd_per_million_tokens(36.0, 1000.0) == pytest.approx(10.0)
    assert np.isinf(usd_per_query(36.0, 0.0))
    price = split(0.01, 1000, 500, 0.2)
    assert price.usd_per_million_input_tokens == pytest.approx(2.0)
    assert price.usd_per_million_output_tokens == pytest.approx(16.0)
    assert split(np.ones((3, 1)), np.ones(4), 1.0, 0.5).usd_per_million_tokens.shape == (3, 4)


PUBLISHED_OWNING = {  # SemiAnalysis, April 2026, $/h: hyperscaler, neocloud
    "h100_sxm": (1.30, 1.69), "h200_sxm": (1.41, 1.74), "b200_sxm": (1.95, 2.34),
    "mi300x": (1.12, 1.40), "mi355x": (1.48, 1.90), "gb200_nvl72": (2.21, 2.75),
}  # fmt: skip


@pytest.mark.published
@pytest.mark.parametrize("name", PUBLISHED_OWNING)
def test_cost_of_owning_near_published(name: str) -> None:
    low, high = PUBLISHED_OWNING[name]
    cost = float(ownership(load_hardware(name)).usd_per_hour)
    assert low / 1.2 <= cost <= high * 1.2
