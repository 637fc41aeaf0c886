"""The programme against exhaustive search, and its properties."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.planning.milp import Fleet, Offer, Pool, relaxation, solve


def exhaustive(fleet: Fleet, most: int) -> float:
    """Cheapest fleet of one demand by trying all replicas, spot replicas and commitments."""
    pools, offers = fleet.pools, fleet.offers
    counts = list(itertools.product(range(most + 1), repeat=2 * len(pools)))
    best_by_hour = []
    for h in range(fleet.demand.shape[1]):
        options = []
        for row in counts:
            kept, spot = row[: len(pools)], row[len(pools) :]
            if _stands(fleet, kept, spot, h):
                options.append((kept, spot))
        best_by_hour.append(options)
    commitments = [
        [dict(zip(o.committed_usd, n, strict=True))
         for n in itertools.product(range(0, most * 4 + 1), repeat=len(o.committed_usd))]
        for o in offers
    ]  # fmt: skip
    best = np.inf
    for chosen in itertools.product(*commitments):
        usd = sum(o.committed_usd[t] * n * fleet.weights.sum()
                  for o, c in zip(offers, chosen, strict=True) for t, n in c.items())  # fmt: skip
        for h, options in enumerate(best_by_hour):
            hourly = [_hour_usd(fleet, kept, spot, chosen) for kept, spot in options]
            usd += fleet.weights[h] * min(hourly, default=np.inf)
        best = min(best, usd)
    return best


def _stands(fleet: Fleet, kept: tuple, spot: tuple, h: int) -> bool:  # type: ignore[type-arg]
    carried, watts = 0.0, 0.0
    for pool, n, s in zip(fleet.pools, kept, spot, strict=True):
        if s and (fleet.max_spot_share == 0 or s > fleet.max_spot_share * (n + s) + 1e-9):
            return False
        up = n + s * fleet.availability(pool)
        up -= fleet.spare if n + s else 0
        carried += max(up, 0.0) * pool.capacity[0]
        if n + s and up < -1e-9:
            return False
        watts += (n + s) * pool.chips * fleet.offers[pool.offer].watts
    return carried >= fleet.demand[0, h] - 1e-9 and watts <= fleet.power_cap_w


def _hour_usd(fleet: Fleet, kept: tuple, spot: tuple, chosen: tuple) -> float:  # type: ignore[type-arg]
    usd = 0.0
    for g, offer in enumerate(fleet.offers):
        mine = [c for c, p in enumerate(fleet.pools) if p.offer == g]
        need = sum(kept[c] * fleet.pools[c].chips for c in mine)
        risky = sum(spot[c] * fleet.pools[c].chips for c in mine)
        own = sum(chosen[g].values())
        extra = max(need - own, 0)
        if own + extra + risky > offer.limit:
            return np.inf
        usd += extra * offer.on_demand_usd if extra else 0.0
        usd += risky * offer.spot_usd if risky else 0.0
    return usd


def small(**changes: object) -> Fleet:
    offers = (
        Offer("a", 3.0, 1.0, {"reserved_1y": 1.7}, limit=6, watts=700, interruptions_per_hour=0.2),
        Offer("b", 5.0, np.inf, {}, limit=4, watts=1000),
    )
    pools = (Pool("a2", 0, 2, (4.0,)), Pool("b1", 1, 1, (3.5,)))
    fleet = Fleet(offers, pools, np.array([[3.0, 9.5]]), np.array([16.0, 8.0]))
    return replace(fleet, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_spot_share": 0.5},
        {"spare": 1},
        {"power_cap_w": 4300.0},
        {"demand": np.array([[0.0, 7.9]])},
        {"demand": np.array([[8.1, 8.1]]), "max_spot_share": 0.34},
    ],
    ids=["plain", "spot", "spare", "power", "empty hour", "flat with spot"],
)
def test_equals_exhaustive_search(changes: dict[str, object]) -> None:
    fleet = small(**changes)
    assert solve(fleet, rel_gap=0.0).usd == pytest.approx(exhaustive(fleet, 4), rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    capacity=st.tuples(st.floats(1, 6), st.floats(1, 6)),
    price=st.tuples(st.floats(1, 6), st.floats(1, 6)),
    peak=st.floats(0.5, 9.0),
    committed=st.floats(0.5, 4.0),
)
def test_equals_exhaustive_search_on_random_instances(
    capacity: tuple[float, float], price: tuple[float, float], peak: float, committed: float
) -> None:
    offers = (Offer("a", price[0], committed_usd={"reserved_1y": committed}, limit=8),
              Offer("b", price[1], limit=8))  # fmt: skip
    pools = (Pool("a", 0, 1, (capacity[0],)), Pool("b", 1, 2, (capacity[1],)))
    fleet = Fleet(offers, pools, np.array([[peak / 3, peak]]), np.array([2.0, 1.0]))
    try:
        found = solve(fleet, rel_gap=0.0).usd
    except InputError:
        found = np.inf
    assert found == pytest.approx(exhaustive(fleet, 8), rel=1e-6)


@pytest.mark.theory
def test_reservation_pays_from_the_hours_at_which_prices_cross() -> None:
    """A chip needed u of the hours is reserved where reserved < u · on-demand."""
    for share, expected in ((0.4, 0), (0.9, 2)):
        weights = np.array([100 * share, 100 * (1 - share)])
        fleet = Fleet((Offer("a", 2.0, committed_usd={"reserved_1y": 1.2}),),
                      (Pool("a", 0, 1, (1.0,)),), np.array([[2.0, 0.0]]), weights)  # fmt: skip
        assert solve(fleet).committed.get((0, "reserved_1y"), 0) == expected


def test_spare_and_zones_keep_the_load_after_a_loss() -> None:
    fleet = Fleet((Offer("a", 1.0),), (Pool("a", 0, 1, (1.0,)),), np.array([[5.0]]), np.ones(1))
    assert solve(fleet).replicas[0, 0] == 5
    assert solve(replace(fleet, spare=1)).replicas[0, 0] == 6
    assert solve(replace(fleet, spare=2)).replicas[0, 0] == 7
    # three zones: ceil(n/3) may go, so n = 8 leaves 5
    assert solve(replace(fleet, zones=3)).replicas[0, 0] == 8
    assert solve(replace(fleet, zones=2)).replicas[0, 0] == 10


def test_bound_gap_and_monotone_cost() -> None:
    fleet = small()
    found = solve(fleet)
    assert found.lp_bound_usd <= found.bound_usd * (1 + 1e-9) <= found.usd * (1 + 1e-9)
    assert 0 <= found.gap <= 1e-4 and found.lp_gap >= found.gap - 1e-12
    dearer = solve(replace(fleet, demand=fleet.demand * 1.1))
    assert dearer.usd >= found.usd
    doubled = tuple(replace(o, on_demand_usd=2 * o.on_demand_usd, spot_usd=2 * o.spot_usd,
                            committed_usd={t: 2 * p for t, p in o.committed_usd.items()})
                    for o in fleet.offers)  # fmt: skip
    assert solve(replace(fleet, offers=doubled)).usd == pytest.approx(2 * found.usd)


def test_two_models_share_chips() -> None:
    offers = (Offer("a", 1.0, limit=8), Offer("b", 2.0))
    pools = (Pool("m a", 0, 2, (1.0, 0.0)), Pool("n a", 0, 2, (0.0, 1.0)),
             Pool("m b", 1, 2, (1.0, 0.0)), Pool("n b", 1, 2, (0.0, 2.5)))  # fmt: skip
    found = solve(Fleet(offers, pools, np.array([[3.0], [2.0]]), np.ones(1)))
    # n on b: 1 replica for $4 frees 4 chips of a ($4): three m on a ($6) and n on b or a
    used = [(found.replicas[c, 0] * p.chips, p.offer) for c, p in enumerate(pools)]
    assert sum(n for n, g in used if g == 0) <= 8
    assert found.usd == pytest.approx(10.0)
    assert found.served.sum(axis=1) == pytest.approx(np.array([[3.0], [2.0]]))


def test_one_more_chip_is_worth_what_the_dearer_one_costs_more() -> None:
    offers = (Offer("a", 1.0, limit=4), Offer("b", 3.0))
    pools = (Pool("a", 0, 1, (1.0,)), Pool("b", 1, 1, (1.0,)))
    fleet = Fleet(offers, pools, np.array([[6.0]]), np.array([10.0]))
    lp = relaxation(fleet)
    assert lp.chip_usd["a"] == pytest.approx(20.0)
    more = replace(fleet, offers=(replace(offers[0], limit=5), offers[1]))
    assert solve(fleet).usd - solve(more).usd == pytest.approx(20.0)
    assert lp.chip_usd["b"] == 0


def test_cold_starts_are_paid() -> None:
    fleet = Fleet((Offer("a", 1.0),), (Pool("a", 0, 1, (1.0,)),), np.array([[1.0, 3.0]]),
                  np.array([1.0, 1.0]))  # fmt: skip
    assert solve(fleet).usd == pytest.approx(4.0)
    assert solve(replace(fleet, cold_start_h=0.1)).usd == pytest.approx(4.2)
    # where starting costs more than idling, the replicas stay
    assert solve(replace(fleet, cold_start_h=1.5)).usd == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_usd": 10.0}, "the budget"),
        ({"power_cap_w": 100.0}, "the power cap"),
        ({"demand": np.array([[3.0, 99.0]])}, "the chip limits"),
    ],
)
def test_impossible_plans_name_the_limit(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        solve(small(**changes))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="rates must be finite"):
        small(demand=np.array([[np.nan, 1.0]]))
    with pytest.raises(InputError, match="spot share"):
        small(max_spot_share=1.5)
