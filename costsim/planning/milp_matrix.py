"""Variables and rows of the fleet's programme, as sparse arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from costsim.planning.fleet import Fleet


@dataclass
class Variables:
    """Where each unknown stands in the vector, what it costs and whether it is whole."""

    count: int = 0
    cost: Any = field(default_factory=lambda: np.zeros(0))
    upper: Any = field(default_factory=lambda: np.zeros(0))
    integral: Any = field(default_factory=lambda: np.zeros(0))
    committed: dict[tuple[int, str], int] = field(default_factory=dict)
    replicas: Any = None
    spot: Any = None
    served: Any = None
    on_demand: Any = None
    starts: Any = None
    used: Any = None
    lost: Any = None

    def add(self, shape: tuple[int, ...], cost: Any, upper: Any, integral: bool) -> np.ndarray:
        """Return the places of new unknowns of a shape."""
        size = int(np.prod(shape))
        self.cost = np.concatenate([self.cost, np.broadcast_to(cost, shape).ravel()])
        self.upper = np.concatenate([self.upper, np.broadcast_to(upper, shape).ravel()])
        self.integral = np.concatenate([self.integral, np.full(size, float(integral))])
        places = np.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        return places


class Rows:
    """Constraints low <= A x <= high, collected one at a time."""

    def __init__(self) -> None:
        self.at: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.labels: list[tuple[str, Any]] = []

    def add(
        self, terms: list[tuple[Any, Any]], low: float, high: float, label: tuple[str, Any]
    ) -> None:
        """Add one row: (places, factors) pairs whose products are summed."""
        places = [np.atleast_1d(p).ravel() for p, _ in terms]
        factors = [np.broadcast_to(np.asarray(f, float), np.shape(p) or (1,)).ravel()
                   for p, (_, f) in zip(places, terms, strict=True)]  # fmt: skip
        self.at.append(np.concatenate(places))
        self.values.append(np.concatenate(factors))
        self.low.append(low)
        self.high.append(high)
        self.labels.append(label)

    def matrix(self, columns: int, which: Any = None) -> Any:
        """Return the rows (all, or some by index) as a sparse matrix."""
        from scipy.sparse import csr_array

        chosen = range(len(self.at)) if which is None else which
        at = [self.at[i] for i in chosen] or [np.zeros(0, int)]
        lengths = [len(self.at[i]) for i in chosen]
        rows = np.repeat(np.arange(len(lengths)), lengths)
        values = [self.values[i] for i in chosen] or [np.zeros(0)]
        shape = (len(lengths), columns)
        return csr_array((np.concatenate(values), (rows, np.concatenate(at))), shape=shape)

    def split(self, columns: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return (A_ub, b_ub) and (A_eq, b_eq) as `scipy.optimize.linprog` takes them."""
        upper, equal = self._upper(), self._equal()
        limits = np.array([self.high[i] for i in upper])
        fixed = np.array([self.low[i] for i in equal])
        return (self.matrix(columns, upper), limits), (self.matrix(columns, equal), fixed)

    def upper_labels(self) -> list[tuple[str, Any]]:
        """Return the labels of the rows of A_ub."""
        return [self.labels[i] for i in self._upper()]

    def _upper(self) -> list[int]:
        return [i for i in range(len(self.low)) if self.low[i] != self.high[i]]

    def _equal(self) -> list[int]:
        return [i for i in range(len(self.low)) if self.low[i] == self.high[i]]


def build(fleet: Fleet) -> tuple[Variables, Rows]:
    """Return the unknowns and the rows of a fleet's programme."""
    v, rows = _variables(fleet), Rows()
    hours = fleet.demand.shape[1]
    for h in range(hours):
        for w in range(fleet.demand.shape[0]):
            rate = float(fleet.demand[w, h])
            rows.add([(v.served[w, :, h], 1.0)], rate, rate, ("demand", (w, h)))
        for c in range(len(fleet.pools)):
            _capacity(fleet, v, rows, c, h)
        for g in range(len(fleet.offers)):
            _chips(fleet, v, rows, g, h)
        if np.isfinite(fleet.power_cap_w):
            rows.add(_power(fleet, v, h), -np.inf, fleet.power_cap_w, ("power", h))
    if fleet.cold_start_h > 0:
        _starts(fleet, v, rows)
    for g, offer in enumerate(fleet.offers):
        mine = [at for (of, _), at in v.committed.items() if of == g]
        if mine and np.isfinite(offer.committed_limit):
            places = np.array(mine)
            rows.add([(places, 1.0)], -np.inf, offer.committed_limit, ("committed chips", g))
    if np.isfinite(fleet.budget_usd):
        priced = np.flatnonzero(v.cost)
        rows.add([(priced, v.cost[priced])], -np.inf, fleet.budget_usd, ("budget", None))
    return v, rows


def _variables(fleet: Fleet) -> Variables:
    v = Variables()
    demands, hours = fleet.demand.shape
    pools, weights = fleet.pools, np.asarray(fleet.weights, float)
    chips = np.array([p.chips for p in pools], float)[:, None]
    spot = np.array([fleet.offers[p.offer].spot_usd for p in pools])[:, None]
    offered = np.isfinite(spot) & (fleet.max_spot_share > 0)
    most = _most(fleet)
    v.replicas = v.add((len(pools), hours), 0.0, most[:, None], True)
    paid = np.where(offered, chips * np.where(offered, spot, 0.0) * weights, 0.0)
    spots = np.where(offered, most[:, None], 0.0) + 0 * paid
    v.spot = v.add((len(pools), hours), paid, spots, True)
    can = np.array([p.capacity for p in pools], float).T[:, :, None] > 0
    v.served = v.add((demands, len(pools), hours), 0.0, np.where(can, np.inf, 0.0), False)
    price = np.array([o.on_demand_usd for o in fleet.offers])[:, None]
    have = np.isfinite(price)
    hourly = np.where(have, np.where(have, price, 0.0) * weights, 0.0)
    v.on_demand = v.add((len(fleet.offers), hours), hourly,
                        np.where(have, np.inf, 0.0) + 0 * hourly, False)  # fmt: skip
    for g, offer in enumerate(fleet.offers):
        for term, usd in offer.committed_usd.items():
            cost = usd * float(weights.sum())
            v.committed[g, term] = int(v.add((1,), cost, np.inf, True)[0])
    times = np.array([times for _, _, times in fleet.changes()])
    v.starts = v.add((len(pools), len(times)), _start_cost(fleet)[:, None] * times, np.inf, False)
    if fleet.spare or fleet.zones > 1 or any(p.headroom > 0 for p in pools):
        v.used = v.add((len(pools), hours), 0.0, 1.0, True)
    if fleet.zones > 1:
        v.lost = v.add((len(pools), hours), 0.0, np.inf, True)
    return v


def _most(fleet: Fleet) -> np.ndarray:
    """Return more replicas of each pool than any hour can use: a bound that helps the solver."""
    peak = fleet.demand.max(axis=1)
    found = []
    for pool in fleet.pools:
        need = sum(p / r for p, r in zip(peak, pool.capacity, strict=True) if r > 0)
        loss = fleet.availability(pool) * (1.0 - 1.0 / max(fleet.zones, 1.0 + 1e-9))
        lossy = need if fleet.zones == 1 else need / max(loss, 1e-9)
        found.append(np.ceil(max(need / fleet.availability(pool), lossy)) + fleet.spare
                     + 2 * np.ceil(pool.headroom) + 2 * fleet.zones)  # fmt: skip
    return np.array(found)


def _start_cost(fleet: Fleet) -> np.ndarray:
    """Return $ of one start of a replica: its chips for the time of a cold start."""
    found = []
    for pool in fleet.pools:
        offer = fleet.offers[pool.offer]
        prices = [p for p in (offer.on_demand_usd, offer.spot_usd) if np.isfinite(p)]
        usd = min([*prices, *offer.committed_usd.values()], default=0.0)
        found.append(pool.chips * usd * fleet.cold_start_h)
    return np.array(found)


def _capacity(fleet: Fleet, v: Variables, rows: Rows, c: int, h: int) -> None:
    """Requests served fit the replicas that stand after the failures to survive."""
    pool = fleet.pools[c]
    serving = np.array([w for w, r in enumerate(pool.capacity) if r > 0])
    per = np.array([1.0 / pool.capacity[w] for w in serving])
    base: list[tuple[Any, Any]] = [(v.served[serving, c, h], per)]
    stand: list[tuple[Any, Any]] = [(v.replicas[c, h], -1.0)]
    if fleet.max_spot_share > 0 and v.upper[v.spot[c, h]] > 0:
        stand.append((v.spot[c, h], -fleet.availability(pool)))
    label = (c, h)
    if pool.headroom > 0:
        stand.append((v.used[c, h], pool.headroom))
    if fleet.spare:
        fails = (v.used[c, h], float(fleet.spare))
        rows.add([*base, *stand, fails], -np.inf, 0.0, ("spare", label))
    if fleet.zones > 1:
        rows.add([*base, *stand, (v.lost[c, h], 1.0)], -np.inf, 0.0, ("zones", label))
        both = [(v.replicas[c, h], 1.0 / fleet.zones), (v.spot[c, h], 1.0 / fleet.zones)]
        rows.add([*both, (v.lost[c, h], -1.0)], -np.inf, 0.0, ("zone size", label))
    if not fleet.spare and fleet.zones == 1:
        rows.add([*base, *stand], -np.inf, 0.0, ("capacity", label))
    if v.used is not None:
        for w in serving:  # demand by demand, which bounds the relaxation well
            rate = float(fleet.demand[w, h])
            rows.add([(v.served[w, c, h], 1.0), (v.used[c, h], -rate)], -np.inf, 0.0,
                     ("used", (w, c, h)))  # fmt: skip
    if fleet.max_spot_share > 0:
        share = fleet.max_spot_share
        rows.add([(v.spot[c, h], 1.0 - share), (v.replicas[c, h], -share)], -np.inf, 0.0,
                 ("spot share", label))  # fmt: skip


def _starts(fleet: Fleet, v: Variables, rows: Rows) -> None:
    """Replicas beyond those of the hour before are started."""
    for at, (before, h, _) in enumerate(fleet.changes()):
        for c in range(len(fleet.pools)):
            rise = [(v.replicas[c, h], 1.0), (v.replicas[c, before], -1.0)]
            rise += [(v.spot[c, h], 1.0), (v.spot[c, before], -1.0), (v.starts[c, at], -1.0)]
            rows.add(rise, -np.inf, 0.0, ("starts", (c, h)))


def _chips(fleet: Fleet, v: Variables, rows: Rows, g: int, h: int) -> None:
    """Chips in use are paid for, and all chips together stay within the limit."""
    mine = [c for c, p in enumerate(fleet.pools) if p.offer == g]
    if not mine:
        return
    chips = np.array([fleet.pools[c].chips for c in mine], float)
    committed = np.array([at for (of, _), at in v.committed.items() if of == g], int)
    rows.add(
        [(v.replicas[mine, h], chips), (v.on_demand[g, h], -1.0), (committed, -1.0)],
        -np.inf, 0.0, ("paid", (g, h)),
    )  # fmt: skip
    if np.isfinite(fleet.offers[g].limit):
        rows.add(
            [(v.on_demand[g, h], 1.0), (committed, 1.0), (v.spot[mine, h], chips)],
            -np.inf, fleet.offers[g].limit, ("chips", g),
        )  # fmt: skip


def _power(fleet: Fleet, v: Variables, h: int) -> list[tuple[Any, Any]]:
    watts = np.array([p.chips * fleet.offers[p.offer].watts for p in fleet.pools])
    return [(v.replicas[:, h], watts), (v.spot[:, h], watts)]
