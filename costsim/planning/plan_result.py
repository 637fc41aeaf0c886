"""A finished plan: the fleet, what it costs, and what speaks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.planning.milp import Solution
from costsim.planning.plan_check import Held
from costsim.planning.plan_fleet import Problem
from costsim.planning.plan_options import PlanOptions
from costsim.planning.plan_worth import RunnerUp, Worth, demand_shares


@dataclass(frozen=True)
class PlanResult:
    """A fleet that carries the demands, what it costs, and what speaks for it.

    Args:
        problem: demands, hardware, pools. solution: the fleet.
        options: terms and limits.
        held: simulated targets of the last round; empty where not simulated.
        rounds: of solving and simulating.
        runners_up: fleets of one hardware alone. worth: of limits and targets; None: not asked.
        bill: the month's $ by what it is for.
        seconds: by phase (``points``, ``solve``, ``compare``, ``check``).
        notes: of prices that are stale or rumoured, models that are rumoured.
    """

    problem: Problem
    solution: Solution
    options: PlanOptions
    held: tuple[Held, ...]
    rounds: int
    runners_up: tuple[RunnerUp, ...]
    worth: Worth | None
    bill: dict[str, Any]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    uncertainty: Any = field(default=None)

    @property
    def usd_per_month(self) -> float:
        """The bill."""
        return self.solution.usd

    @property
    def queries_per_month(self) -> float:
        """Requests that are served."""
        fleet = self.problem.fleet
        return float((fleet.demand @ fleet.weights).sum() * 3600.0)

    @property
    def usd_per_query(self) -> float:
        """The bill over all requests."""
        return self.usd_per_month / self.queries_per_month

    @property
    def holds(self) -> bool | None:
        """Whether every simulated target holds; None where nothing was simulated."""
        return all(row.held for row in self.held) if self.held else None

    def chips(self) -> dict[str, np.ndarray]:
        """Return chips in service by hardware and hour."""
        found: dict[str, np.ndarray] = {}
        for c, pool in enumerate(self.problem.fleet.pools):
            count = (self.solution.replicas[c] + self.solution.spot[c]) * pool.chips
            name = self.problem.fleet.offers[pool.offer].name
            if count.any():
                found[name] = found.get(name, np.zeros(len(count))) + count
        return found

    def usd_by_demand(self) -> dict[str, float]:
        """Return $ per query of each demand, by the capacity that it takes."""
        fleet = self.problem.fleet
        shares = demand_shares(self.problem, self.solution)
        counts = fleet.demand @ fleet.weights * 3600.0
        return {
            d.name: self.usd_per_month * shares[d.name] / float(n)
            for d, n in zip(self.problem.demands, counts, strict=True)
        }
