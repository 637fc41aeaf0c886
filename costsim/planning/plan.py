"""``costsim.plan``: from traffic, targets, budget and chips to a fleet, and how sure it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model
from costsim.models.loader import load_model
from costsim.planning.executor import Executor
from costsim.planning.milp import Solution
from costsim.planning.plan_check import Held, check_plan
from costsim.planning.plan_fleet import Problem, make_problem, solve_problem
from costsim.planning.plan_json import plan_dict
from costsim.planning.plan_options import PlanOptions
from costsim.planning.plan_repair import Repairer
from costsim.planning.plan_result import PlanResult
from costsim.planning.plan_worth import (
    RunnerUp,
    bill,
    runners_up,
    spend_by_offer,
    worth_of,
)
from costsim.planning.study import Study
from costsim.planning.targets import Target
from costsim.planning.workload import HOURS_PER_MONTH, Demand, demand_of

Progress = Callable[[str], None]


class Plan(PlanResult):
    """A finished plan; see `costsim.planning.plan_result.PlanResult` for its fields."""

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return plan_dict(self)


def plan(
    model: str | Model | Sequence[str],
    hardware: Sequence[str | Hardware],
    *,
    traffic: Any,
    target: Target | None = None,
    isl: float = 1024.0,
    osl: float = 256.0,
    options: PlanOptions | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    study: Study | None = None,
    **settings: Any,
) -> Plan:
    """Return the cheapest fleet that serves a traffic within targets, simulated and repaired.

    Args:
        model: name or object.
        hardware: candidates, names or objects.
        traffic: a rate (requests/s), 24 or 168 rates by hour, a `Traffic`, the table of one, the
            path of a trace, or a list of `Demand` (several classes or models).
        target: latencies.
        isl, osl: mean tokens of a request, where the traffic is rates.
        options: terms, limits, redundancy; its fields may also be given by name.
        progress: told what is done.
        executor: where simulations run. study: keeps their results, to resume.

    Raises:
        InputError: unknown names, no prices, or nothing carries the load within the limits.
    """
    options = replace(options or PlanOptions(), **settings)
    if isinstance(traffic, list | tuple) and traffic and isinstance(traffic[0], Demand):
        demands = list(traffic)
    else:
        name = model if isinstance(model, str) else getattr(model, "name", str(model))
        demands = [demand_of(traffic, name, target=target, isl=isl, osl=osl)]
    models = {d.model: load_model(d.model) for d in demands if not isinstance(model, Model)}
    if isinstance(model, Model):
        models = {model.name: model}
    kinds = [h if isinstance(h, Hardware) else load_hardware(h) for h in hardware]
    return plan_demands(demands, models, kinds, options, progress, executor, study)


def plan_demands(
    demands: Sequence[Demand], models: dict[str, Model], hardware: Sequence[Hardware],
    options: PlanOptions, progress: Progress | None = None, executor: Executor | None = None,
    study: Study | None = None,
) -> Plan:
    """Return the plan of several demands; see `plan`."""
    say = progress or (lambda text: None)
    _distinct([d.name for d in demands], "demand")
    _distinct([h.name for h in hardware], "hardware")
    for name in options.limits:
        if name not in {h.name for h in hardware}:
            raise InputError(f"plan: a limit is given for '{name}', which is no candidate")
    clock = _Clock()
    say("pricing operating points")
    problem = make_problem(demands, models, hardware, options)
    clock.lap("points")
    say("choosing the fleet")
    found = solve_problem(problem, options)
    clock.lap("solve")
    held: list[Held] = []
    rounds = 0
    for rounds in range(1, options.attempts + 1) if options.check else ():
        held = check_plan(problem, found, options, say, executor, study)
        if all(row.held for row in held) or rounds == options.attempts:
            break
        say("repairing")
        problem = Repairer(problem, found, options, executor, study).repaired(held)
        found = solve_problem(problem, options)
    clock.lap("check")
    rivals: list[RunnerUp] = []
    worth = None
    if options.compare:
        say("comparing")
        rivals = runners_up(problem, found, options)
        worth = worth_of(problem, models, found, options)
        clock.lap("compare")
    return Plan(
        problem, found, options, tuple(held), rounds, tuple(rivals), worth, bill(problem, found),
        clock.seconds, (*_unheld(held, rounds), *_notes(problem, found, models, options)),
    )  # fmt: skip


def rechecked(found: Plan, progress: Progress | None = None) -> Plan:
    """Return a plan with its targets simulated anew, where its options ask for it."""
    if not found.options.check:
        return found
    held = check_plan(found.problem, found.solution, found.options, progress)
    notes = [n for n in found.notes if not n.startswith("targets do not hold")]
    return replace(found, held=tuple(held), rounds=1, notes=(*_unheld(held, 1), *notes))


class _Clock:
    def __init__(self) -> None:
        self.last, self.seconds = time.perf_counter(), {}  # type: float, dict[str, float]

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def _distinct(names: Sequence[str], kind: str) -> None:
    if not names:
        raise InputError(f"plan: no {kind} is given")
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise InputError(f"plan: {kind} '{min(twice)}' is given twice")


def _unheld(held: Sequence[Held], rounds: int) -> list[str]:
    if not held or all(row.held for row in held):
        return []
    return [f"targets do not hold with confidence after {rounds} rounds; the plan is not enough"]


def _notes(
    problem: Problem, found: Solution, models: dict[str, Model], options: PlanOptions
) -> list[str]:
    notes = []
    for name, terms in spend_by_offer(problem.fleet, found).items():
        kind = next(h for h in problem.hardware if h.name == name)
        for term in terms:
            price = None if term in options.prices.get(name, {}) else options.rent(kind, term)
            if price is not None and price.doubtful:
                notes.append(f"{name}: {price.note}")
            elif term == "owned" and price is None and term not in options.prices.get(name, {}):
                notes.append(f"{name}: owned at the list price of its profile")
        if kind.provenance in ("unverified", "rumoured"):
            notes.append(f"{name}: figures are {kind.provenance}")
    for model in models.values():
        if model.provenance == "rumoured":
            notes.append(f"{model.name}: its architecture is rumoured")
    return sorted({n for n in notes if n})


def load_plan(path: Path | str) -> tuple[list[Demand], list[Hardware], PlanOptions]:
    """Return demands, hardware and options of a plan's TOML file.

    Raises:
        InputError: one line with file, key, value and what is allowed.
    """
    from costsim.planning.plan_schema import read_plan

    return read_plan(Path(path))


__all__ = ["HOURS_PER_MONTH", "Plan", "PlanOptions", "load_plan", "plan",
           "plan_demands", "rechecked"]  # fmt: skip
