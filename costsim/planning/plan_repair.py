"""Repair of a plan that misses its targets: what its pools really carry, found by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from costsim.planning.executor import Executor
from costsim.planning.fleet import Pool
from costsim.planning.milp import Solution
from costsim.planning.plan_check import MOST_REPLICAS, Held, HourRun, judged
from costsim.planning.plan_fleet import Problem, select_pools
from costsim.planning.plan_options import PlanOptions
from costsim.planning.study import Study

_STEPS = 4
_LEAST = 0.25


@dataclass(frozen=True)
class Repairer:
    """Where pools are simulated: demands, options, executor and study of a plan."""

    problem: Problem
    found: Solution
    options: PlanOptions
    executor: Executor | None = None
    study: Study | None = None

    def repaired(self, held: Sequence[Held]) -> Problem:
        """Return the problem with what the pools that missed were found to carry.

        Pools for the same demand that were not simulated yet are held to fall short of their first
        estimate as much, so that they do not win by optimism alone; the pools that the solver is
        given are chosen anew.

        Args:
            held: targets of the plan's hours, simulated.
        """
        problem = self.problem
        pools, shares = list(problem.everything.pools), dict[int, list[float]]()
        measured = set(problem.measured)
        for c in sorted({row.pool for row in held if not row.held}):
            at, owner = problem.chosen[c], problem.made_for(c)
            prior = 1.0 if at in measured else problem.priors.get(owner, 1.0)
            pools[at], share = self._measured(c, [r for r in held if r.pool == c and not r.held])
            shares.setdefault(owner, []).append(share * prior)
            measured.add(at)
        priors = dict(problem.priors)
        for owner, found in shares.items():
            if owner not in priors:
                priors[owner] = float(np.mean(found))
                pools = [_scaled(p, priors[owner]) if problem.owners[i] == owner
                         and i not in measured else p for i, p in enumerate(pools)]  # fmt: skip
        everything = replace(problem.everything, pools=tuple(pools))
        return replace(problem, everything=everything, chosen=tuple(select_pools(everything)),
                       measured=frozenset(measured), priors=priors)  # fmt: skip

    def _measured(self, c: int, missed: Sequence[Held]) -> tuple[Pool, float]:
        """Return a pool with capacity and headroom such that few and many replicas hold.

        The second is the share of their capacity that many replicas carry.

        n replicas carry kn − d: many share their fluctuations, a few cannot. Both ends of the
        counts in use are simulated at falling loads; the loads that missed are excluded.
        """
        pool = self.problem.fleet.pools[c]
        up = self._standing(c)
        counts = sorted({int(up[up > 0].min()), int(up.max())})
        most = {n: min([1.0, *(r.load for r in missed if self._count(r) == n)]) for n in counts}
        carried = [n * self._share(c, n, most[n]) for n in counts]
        slope, lost = _line(counts, carried)
        for row in missed:
            n = self._count(row)
            lost = max(lost, slope * n - 0.99 * row.load * n)
        capacity = tuple(r * slope for r in pool.capacity)
        share = carried[-1] / counts[-1]
        return replace(pool, capacity=capacity, headroom=lost / slope), share

    def _standing(self, c: int) -> np.ndarray:
        """Return replicas by hour, without those that may fail, as many as are simulated."""
        count = self.found.replicas[c] + self.found.spot[c]
        up = np.where(count > 0, np.maximum(count - self.options.spare, 1), 0)
        return np.minimum(up, MOST_REPLICAS)

    def _count(self, row: Held) -> int:
        return int(self._standing(row.pool)[row.hour])

    def _share(self, c: int, count: int, most: float) -> float:
        """Return the greatest share of their capacity at which so many replicas hold."""
        hour = int(np.flatnonzero(self._standing(c) == count)[0])
        capacity = self.problem.fleet.pools[c].capacity
        served = self.found.served[:, c, hour]
        if not served.any():
            served = self.found.served[:, c].max(axis=1)
        load = sum(y / r for y, r in zip(served, capacity, strict=True) if r > 0)
        full = tuple(float(y) * count / load for y in served)
        low, high = _LEAST * most, most
        for _ in range(_STEPS):
            middle = 0.5 * (low + high)
            run = HourRun(c, hour, self.problem.candidate(c), count,
                          tuple(middle * r for r in full), middle)  # fmt: skip
            rows = judged(self.problem.demands, [run], self.options, self.executor, self.study, 1)
            low, high = (middle, high) if all(row.held for row in rows) else (low, middle)
        return low


def _scaled(pool: Pool, share: float) -> Pool:
    return replace(pool, capacity=tuple(share * r for r in pool.capacity))


def _line(counts: Sequence[int], carried: Sequence[float]) -> tuple[float, float]:
    """Return slope and offset of carried = slope·n − offset, through both points if it can be."""
    each = [load / n for n, load in zip(counts, carried, strict=True)]
    if len(counts) == 1:
        return each[0], 0.0
    slope = min((carried[1] - carried[0]) / (counts[1] - counts[0]), 1.0)
    if slope <= each[1]:
        return min(each), 0.0
    return slope, slope * counts[1] - carried[1]
