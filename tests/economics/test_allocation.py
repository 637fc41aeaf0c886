"""Allocated cost adds up to the bill to the cent; break-even against closed forms; API prices."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.economics.allocation import PARTS, Usage, allocate, to_cents
from costsim.economics.api import api_price, api_prices, yearly_decline
from costsim.economics.breakeven import Option, break_even_date, break_even_utilisation
from costsim.errors import InputError

share = st.floats(0.0, 1.0)


@given(
    bill=st.floats(0.0, 1e9), paid=st.floats(1.0, 1e9), busy=share, inputs=share, cached=share,
    lost=share, cold=share,
)  # fmt: skip
def test_allocation_adds_up_to_the_bill_to_the_cent(
    bill: float, paid: float, busy: float, inputs: float, cached: float, lost: float, cold: float
) -> None:
    busy_s = paid * busy
    usage = Usage(paid, busy_s, inputs, cached, busy_s * lost, (paid - busy_s) * cold)
    parts = allocate(bill, usage)
    assert tuple(parts) == PARTS
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) == Decimal(repr(bill)).quantize(Decimal("0.01"), "ROUND_HALF_UP")


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9), st.integers(0, 10**10))
def test_no_part_is_off_by_more_than_a_cent(weights: list[float], cents: int) -> None:
    named = {str(at): weight for at, weight in enumerate(weights)}
    parts = to_cents(named, cents / 100)
    for name, weight in named.items():
        exact = cents * weight / sum(weights)
        assert abs(float(parts[name]) * 100 - exact) <= 1.0 + 1e-6 * exact


def test_hand_computed_allocation() -> None:
    parts = allocate(100.0, Usage(1000.0, 500.0, 0.4, 0.25, 50.0, 20.0))
    # useful 450 s: prompts 180, of which 45 cached; output 270; idle 480; lost 50; cold 20
    expected = {"input": "13.50", "cached_input": "4.50", "output": "27.00", "idle": "48.00",
                "failures": "5.00", "cold_starts": "2.00"}  # fmt: skip
    assert {name: str(value.quantize(Decimal("0.01"))) for name, value in parts.items()} == expected


def test_more_seconds_used_than_paid_is_an_error() -> None:
    with pytest.raises(InputError, match="only 10 s paid for"):
        allocate(1.0, Usage(10.0, 11.0, 0.5))
    with pytest.raises(InputError, match=r"input_share = 1\.5"):
        allocate(1.0, Usage(10.0, 1.0, 1.5))


@given(st.floats(0.1, 5.0), st.floats(0.0, 0.5), st.floats(0.1, 20.0))
def test_break_even_utilisation_is_where_costs_meet(
    fixed: float, power: float, rent: float
) -> None:
    own, cloud = Option("own", 1.0, fixed, power), Option("rent", 0.0, 0.0, rent)
    at = break_even_utilisation(own, cloud)
    if np.isnan(at):
        ends = np.array([0.0, 1.0])
        gap = own.usd_per_hour(ends) - cloud.usd_per_hour(ends)
        assert gap[0] * gap[1] >= 0
    else:
        assert own.usd_per_hour(at) == pytest.approx(cloud.usd_per_hour(at))


@pytest.mark.theory
def test_break_even_date_is_capital_over_the_saving() -> None:
    own = Option("own", capital_usd=8766.0, running_usd_per_hour=1.0)
    rent = Option("rent", fixed_usd_per_hour=3.0)
    found = break_even_date(own, rent, 1.0, date(2026, 1, 1))
    assert found is not None
    assert abs(found - (date(2026, 1, 1) + timedelta(days=365.25 / 2))) <= timedelta(days=1)
    same = Option("rent", fixed_usd_per_hour=1.0)
    assert break_even_date(own, same, 1.0, date(2026, 1, 1)) is None
    falling = Option("rent", fixed_usd_per_hour=3.0, decline_per_year=0.5)
    later = break_even_date(own, falling, 1.0, date(2026, 1, 1))
    assert later is not None and later > found


@pytest.mark.theory
def test_spending_under_a_falling_price_is_its_integral() -> None:
    option = Option("rent", fixed_usd_per_hour=2.0, decline_per_year=0.3)
    t = np.linspace(0, 3, 300001)
    integral = np.trapezoid(2.0 * 0.7**t, t) * 8766.0
    assert option.spent_usd(3.0, 1.0) == pytest.approx(integral, rel=1e-8)


def test_api_prices_over_time() -> None:
    assert api_price("gpt-3.5-turbo", date(2023, 6, 1)).output == 2.0
    newest = api_price("gpt-3.5-turbo")
    assert newest.output == 1.5 and newest.stale(date(2026, 11, 24))
    assert yearly_decline(api_prices(api="gpt-3.5-turbo")) > 0.3
    deepseek = api_price("deepseek-v3")
    assert deepseek.usd_per_query(1e6, 1e6, 1.0) == pytest.approx(0.07 + 1.10)
    assert deepseek.usd_per_query(1e6, 0, 0.0) == pytest.approx(0.27)
    for api in ("gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "deepseek-r1", "llama-3-70b"):
        assert api_prices(api=api)
    with pytest.raises(InputError, match="did you mean 'gpt-4'"):
        api_price("gpt4")
    with pytest.raises(InputError, match="no price before 2020-01-01"):
        api_price("gpt-4", date(2020, 1, 1))
