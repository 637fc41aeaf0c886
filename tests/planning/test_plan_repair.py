"""What simulation makes of capacities: lines through few and many replicas, priors for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import costsim
from costsim.planning.plan import plan
from costsim.planning.plan_check import check_plan
from costsim.planning.plan_fleet import solve_problem
from costsim.planning.plan_repair import Repairer, _line
from costsim.planning.workload import Demand

OPTIONS: dict[str, Any] = {"compare": False, "check": False, "disaggregated": False,
                           "terms": ("on_demand",), "requests": 1000}  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "loads", "expected"),
    [
        ((1, 8), (0.55, 5.8), (0.75, 0.2)),  # few lose a fixed part
        ((4,), (3.0,), (0.75, 0.0)),
        ((1, 4), (0.9, 3.0), (0.75, 0.0)),  # many carry less than their share: the least
    ],
)
def test_a_line_passes_through_what_holds(
    counts: tuple[int, ...], loads: tuple[float, ...], expected: tuple[float, float]
) -> None:
    slope, lost = _line(counts, loads)
    assert (slope, lost) == pytest.approx(expected)
    for n, load in zip(counts, loads, strict=True):
        assert slope * n - lost <= load + 1e-9


def test_repaired_pools_carry_less_and_rivals_are_held_to_fall_short_alike() -> None:
    target = costsim.Target(ttft_p99_s=1.0, tpot_p99_s=0.02)
    rates = np.array([8.0, 60.0, 120.0] * 8)
    chat = Demand("chat", "llama-3.1-8b", rates, 1500, 120, 1.0, target)
    made = plan("llama-3.1-8b", ["h100_sxm", "mi300x"], traffic=[chat], **OPTIONS)
    held = check_plan(made.problem, made.solution, made.options)
    assert not all(row.held for row in held), "varied lengths must show in the tails"
    problem = Repairer(made.problem, made.solution, made.options).repaired(held)
    before, after = made.problem.everything.pools, problem.everything.pools
    for at, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new.capacity[0] < old.capacity[0]
        if at not in problem.measured:
            assert new.capacity[0] == pytest.approx(problem.priors[0] * old.capacity[0])
    again = solve_problem(problem, made.options)
    assert again.usd >= made.solution.usd
    better = check_plan(problem, again, made.options)
    worst = [max(r.upper_s / r.target_s for r in rows) for rows in (held, better)]
    assert worst[1] < worst[0]
