"""Several models on mixed pools against exhaustive search, and duals against solving again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.planning.fleet import Fleet, Offer, Pool
from costsim.planning.milp import relaxation, solve

OFFERS = (Offer("a", 3.0, 1.2, {"reserved_1y": 1.8}, limit=5, watts=700,
                interruptions_per_hour=0.3),
          Offer("b", 4.0, limit=4, watts=1000))  # fmt: skip
# one model on either hardware, another on either, and a strict class whose pool serves both classes
POOLS = (Pool("m a", 0, 1, (2.0, 0.0)), Pool("m b", 1, 1, (3.0, 0.0)),
         Pool("n a", 0, 2, (0.0, 4.0)), Pool("mn b", 1, 1, (1.5, 2.0)))  # fmt: skip


def fleet(**changes: object) -> Fleet:
    made = Fleet(OFFERS, POOLS, np.array([[2.0, 5.0], [1.0, 3.0]]), np.array([14.0, 10.0]))
    return replace(made, **changes)  # type: ignore[arg-type]


def exhaustive(plain: Fleet, most: int) -> float:
    """Cheapest fleet by trying all counts of replicas, kept and spot, and all commitments."""
    pools, offers = plain.pools, plain.offers
    risky = [np.isfinite(offers[p.offer].spot_usd) and plain.max_spot_share > 0 for p in pools]
    ranges = [range(most + 1)] * len(pools) + [range(2 if r else 1) for r in risky]
    counts = np.array(list(itertools.product(*ranges)), float)
    kept, spot = counts[:, : len(pools)], counts[:, len(pools) :]
    up = _up(plain, kept, spot)
    chips = np.array([p.chips for p in pools])
    watts = np.array([offers[p.offer].watts for p in pools]) * chips
    good = np.all(spot <= plain.max_spot_share * (kept + spot) + 1e-9, axis=1)
    good &= np.all(up >= -1e-9, axis=1) & ((kept + spot) @ watts <= plain.power_cap_w + 1e-9)
    best = np.inf
    for own in range(int(offers[0].limit) + 1):
        usd = own * offers[0].committed_usd["reserved_1y"] * plain.weights.sum()
        hourly = _hourly(plain, kept * chips, spot * chips, own)
        for h in range(plain.demand.shape[1]):
            able = good & _carried(plain, np.maximum(up, 0.0), h)
            usd += plain.weights[h] * np.min(np.where(able, hourly, np.inf))
        best = min(best, usd)
    return float(best)


def _carried(plain: Fleet, up: np.ndarray, h: int) -> np.ndarray:
    """Whether so many replicas' worth carry both demands: the shared pool takes what is left."""
    rates = np.array([p.capacity for p in plain.pools])
    alone = [np.flatnonzero((rates[:, w] > 0) & (rates[:, 1 - w] == 0)) for w in range(2)]
    left = [np.maximum(plain.demand[w, h] - up[:, alone[w]] @ rates[alone[w], w], 0.0)
            for w in range(2)]  # fmt: skip
    shared = len(plain.pools) - 1
    return left[0] / rates[shared, 0] + left[1] / rates[shared, 1] <= up[:, shared] + 1e-9


def _up(plain: Fleet, kept: np.ndarray, spot: np.ndarray) -> np.ndarray:
    """Replicas' worth that stand after failures."""
    both = kept + spot
    free = plain.spare + np.array([p.headroom for p in plain.pools])
    lost = np.ceil(both / plain.zones - 1e-9) if plain.zones > 1 else 0.0
    standing = np.array([plain.availability(p) for p in plain.pools])
    return np.where(both > 0, kept + spot * standing - free - lost, 0.0)


def _hourly(plain: Fleet, kept: np.ndarray, spot: np.ndarray, own: int) -> np.ndarray:
    """$ of an hour beyond the commitment, by row of chips; infinite beyond the limits."""
    usd = np.zeros(len(kept))
    for g, offer in enumerate(plain.offers):
        mine = [c for c, p in enumerate(plain.pools) if p.offer == g]
        held = own if g == 0 else 0
        extra = np.maximum(kept[:, mine].sum(axis=1) - held, 0.0)
        risky = spot[:, mine].sum(axis=1)
        price = offer.spot_usd if np.isfinite(offer.spot_usd) else 0.0
        within = held + extra + risky <= offer.limit
        usd = np.where(within, usd + extra * offer.on_demand_usd + risky * price, np.inf)
    return usd


HEADROOM = tuple(replace(p, headroom=0.3) for p in POOLS)


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_spot_share": 0.5}, {"spare": 1, "demand": np.array([[1.0, 3.0], [1.0, 2.0]])},
     {"power_cap_w": 4200.0}, {"pools": HEADROOM},
     {"zones": 2, "demand": np.array([[1.0, 2.0], [0.0, 1.5]])},
     {"pools": HEADROOM, "max_spot_share": 0.5, "power_cap_w": 5000.0}],
    ids=["plain", "spot", "spare", "power", "headroom", "zones", "all"],
)  # fmt: skip
def test_two_models_on_mixed_pools_equal_exhaustive_search(changes: dict[str, object]) -> None:
    plain = fleet(**changes)
    assert solve(plain, rel_gap=0.0).usd == pytest.approx(exhaustive(plain, 4), rel=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.sampled_from([0.0, 0.25]))
def test_random_demands_equal_exhaustive_search(tenths: list[int], headroom: float) -> None:
    rates = [0.1003 * t for t in tenths]  # never at the edge of the solver's tolerance
    pools = tuple(replace(p, headroom=headroom) for p in POOLS)
    plain = fleet(pools=pools, demand=np.array([[rates[0], rates[1]], [rates[2], rates[3]]]))
    try:
        found = solve(plain, rel_gap=0.0).usd
    except InputError:
        found = np.inf
    assert found == pytest.approx(exhaustive(plain, 4), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("more", [0.25, 1.0])
def test_a_chip_is_worth_what_solving_again_says(more: float) -> None:
    """The dual is the slope of the relaxation's cost: it bounds what more chips save."""
    def limited(chips: float) -> Fleet:
        return fleet(offers=(replace(OFFERS[0], limit=12), replace(OFFERS[1], limit=chips)),
                     demand=np.array([[4.0, 7.0], [2.0, 4.0]]))  # fmt: skip

    lp = relaxation(limited(1.5))
    assert lp.chip_usd["b"] > 0
    assert lp.usd - relaxation(limited(1.5 + more)).usd <= lp.chip_usd["b"] * more + 1e-6
    saved = lp.usd - relaxation(limited(1.5 + 1e-3)).usd
    assert saved == pytest.approx(1e-3 * lp.chip_usd["b"], rel=1e-3)


def test_a_kilowatt_is_worth_what_solving_again_says() -> None:
    hot = (replace(OFFERS[0], limit=20), replace(OFFERS[1], watts=1300, limit=20))
    tight = fleet(offers=hot, power_cap_w=2900.0)  # the cheaper chips draw more per request
    lp = relaxation(tight)
    assert lp.power_usd_per_kw > 0
    again = relaxation(replace(tight, power_cap_w=2901.0))
    assert lp.usd - again.usd == pytest.approx(1e-3 * lp.power_usd_per_kw, rel=1e-3)


def test_one_percent_of_a_price_is_worth_what_solving_again_says() -> None:
    plain = fleet()
    base = solve(plain, rel_gap=0.0)
    cheaper = tuple(replace(o, on_demand_usd=0.99 * o.on_demand_usd, spot_usd=0.99 * o.spot_usd,
                            committed_usd={t: 0.99 * u for t, u in o.committed_usd.items()})
                    if o.name == "a" else o for o in OFFERS)  # fmt: skip
    spent = base.usd - sum(
        float(base.on_demand[g] @ plain.weights) * o.on_demand_usd
        for g, o in enumerate(OFFERS) if o.name == "b"
    )  # fmt: skip
    saved = base.usd - solve(replace(plain, offers=cheaper), rel_gap=0.0).usd
    assert saved >= 0.01 * spent - 1e-9  # the same fleet costs so much less; another may cost less
    assert saved == pytest.approx(0.01 * spent, rel=0.02)
