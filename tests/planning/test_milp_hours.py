"""Hours alike are planned once: the same bill as hour by hour, in a fraction of the unknowns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.planning.fleet import Fleet, Offer, Pool
from costsim.planning.milp import relaxation, solve
from costsim.planning.milp_hours import merged

OFFERS = (Offer("a", 3.0, 1.0, {"reserved_1y": 1.7}, limit=9, interruptions_per_hour=0.2),
          Offer("b", 5.0))  # fmt: skip
POOLS = (Pool("a2", 0, 2, (4.0,)), Pool("b1", 1, 1, (3.5,)))
WEEK = np.array([[1.0, 5.0, 9.0, 5.0] * 5 + [1.0, 2.0, 2.0, 1.0] * 2])


def fleet(demand: np.ndarray = WEEK, **changes: object) -> Fleet:
    made = Fleet(OFFERS, POOLS, demand, np.ones(demand.shape[1]))
    return replace(made, **changes)  # type: ignore[arg-type]


def hour_by_hour(plain: Fleet) -> Fleet:
    """The same fleet with its steps written out, which is not merged."""
    return replace(plain, steps=plain.changes())


@pytest.mark.parametrize("changes", [{}, {"spare": 1}, {"zones": 2}, {"max_spot_share": 0.5},
                                     {"cold_start_h": 0.05}])  # fmt: skip
def test_merged_hours_cost_what_single_hours_do(changes: dict[str, object]) -> None:
    plain = fleet(**changes)
    small, group = merged(plain)
    assert small.demand.shape[1] <= 13 and len(group) == 28
    assert np.array_equal(small.demand[:, group], plain.demand)
    assert small.weights.sum() == pytest.approx(plain.weights.sum())
    found, single = solve(plain, rel_gap=0.0), solve(hour_by_hour(plain), rel_gap=1e-4)
    assert found.usd == pytest.approx(single.usd, rel=1e-3)
    assert found.replicas.shape == single.replicas.shape == (2, 28)
    assert found.served.sum(axis=1) == pytest.approx(plain.demand)
    assert relaxation(plain).usd <= relaxation(hour_by_hour(plain)).usd * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([0.0, 2.0, 6.0, 11.0]), min_size=4, max_size=8))
def test_without_starts_nothing_is_lost(rates: list[float]) -> None:
    plain = fleet(np.array([[*rates, 1.0]]))
    assert solve(plain, rel_gap=0.0).usd == pytest.approx(
        solve(hour_by_hour(plain), rel_gap=0.0).usd, rel=1e-6
    )


def test_starts_of_merged_hours_are_counted_as_often_as_they_happen() -> None:
    """Five days of 1, 3, 3 requests/s on $1 replicas start two more each day."""
    one = Fleet((Offer("a", 1.0),), (Pool("a", 0, 1, (1.0,)),), np.array([[1.0, 3.0, 3.0] * 5]),
                np.ones(15), cold_start_h=0.1)  # fmt: skip
    assert solve(one).usd == pytest.approx(5 * (7 + 2 * 0.1))
