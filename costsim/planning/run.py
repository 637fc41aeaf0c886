"""Run a scenario: every model on every accelerator for every workload, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.models.count import active_parameters, total_parameters
from costsim.models.variants import moe_variant
from costsim.planning.cells import price_cell
from costsim.planning.compare import curves_of
from costsim.planning.findings import findings, warnings
from costsim.planning.load import LoadCurve, crossovers
from costsim.planning.results import Cell, ExpertPoint, ScenarioResult
from costsim.planning.scenario import HardwareEntry, ModelEntry, Scenario, Workload
from costsim.planning.studies.run import run_study

Progress = Callable[[int, int, str], None]


def run_scenario(scenario: Scenario, progress: Progress | None = None) -> ScenarioResult:
    """Return everything a scenario asks for.

    Args:
        scenario: from `load_scenario`.
        progress: called with (done, total, what is being done).
    """
    result = ScenarioResult(scenario)
    cells = [(w, h, m) for w in scenario.workloads for h in scenario.hardware
             for m in scenario.models]
    sweeps = [(w, h, n) for w in scenario.workloads[:1] for h in scenario.hardware
              for n in scenario.sweep_experts]
    studies = scenario.studies
    total = len(cells) + len(sweeps) + len(studies) + (1 if scenario.simulate_s else 0)
    say = progress or (lambda done, total, what: None)
    for i, (workload, hardware, model) in enumerate(cells):
        say(i, total, f"{model.title} on {hardware.key}")
        result.cells.append(price_cell(scenario, model, hardware, workload))
    for i, (workload, hardware, experts) in enumerate(sweeps):
        say(len(cells) + i, total, f"{experts} experts on {hardware.key}")
        result.sweep.append(_sweep_point(scenario, experts, hardware, workload))
    _add_curves(result)
    for i, study in enumerate(studies):
        say(len(cells) + len(sweeps) + i, total, study.title)
        result.studies.append(run_study(result, study))
    if scenario.simulate_s:
        say(total - 1, total, "traffic through the simulator")
        _simulate(result)
    result.points = sum(c.choice.considered for c in result.cells if c.choice)
    result.points += sum(p.choice.considered for p in result.sweep if p.choice)
    result.points += sum(s.points for s in result.studies)
    result.findings = findings(result)
    result.warnings = warnings(result)
    say(total, total, "done")
    return result


def _sweep_point(scenario: Scenario, experts: int, hardware: HardwareEntry, workload: Workload
                 ) -> ExpertPoint:
    base = next(m for m in scenario.models if m.key == scenario.sweep_base)
    model = base.model
    if experts > 1:
        model = moe_variant(base.model, experts=experts, top_k=min(scenario.sweep_top_k, experts),
                            keep="active", name=f"{base.key}-{experts}e")
    entry = replace(base, model=model, title=f"{experts} experts")
    cell = price_cell(scenario, entry, hardware, workload)
    return ExpertPoint(experts, float(total_parameters(model)), hardware.key, workload.key,
                       cell.estimate, cell.choice, cell.reason)


def _add_curves(result: ScenarioResult) -> None:
    scenario = result.scenario
    for hardware in scenario.hardware:
        for workload in scenario.workloads:
            cells = [c for c in result.found(hardware.key, workload.key) if not c.reason]
            if not cells:
                continue
            names = [c.name for c in cells]
            choices = [c.choice for c in cells if c.choice is not None]
            estimates = [c.estimate for c in cells if c.estimate is not None]
            curves = curves_of(names, choices, estimates, hardware.limit)
            key = (hardware.key, workload.key)
            result.curves[key] = curves
            base = _baseline_curve(result, curves)
            others = [c for c in curves if c is not base]
            found = [x for c in others for x in crossovers(base, c)] if base else []
            result.crossovers[key] = tuple(found)


def _baseline_curve(result: ScenarioResult, curves: Sequence[LoadCurve]) -> LoadCurve | None:
    title = next(m.title for m in result.scenario.models if m.key == result.scenario.baseline)
    return next((c for c in curves if c.name == title), None)


def _simulate(result: ScenarioResult) -> None:
    """Simulate the baseline and the cheapest other model on the last hardware that holds both."""
    scenario = result.scenario
    workload = scenario.workloads[0]
    for hardware in reversed(scenario.hardware):
        cells = result.found(hardware.key, workload.key)
        base = next((c for c in cells if c.model.key == scenario.baseline), None)
        others = [c for c in cells if c.model.key != scenario.baseline and not c.model.reference]
        if base is None or not others:
            continue
        cheapest = min(others, key=lambda c: float(c.estimate.usd_per_query) if c.estimate else 0.0)
        for cell in (base, cheapest):
            result.latencies[f"{cell.name} on {hardware.key}"] = _simulated(cell, scenario)
        return


def _simulated(cell: Cell, scenario: Scenario) -> dict[str, Any]:
    """Return latencies of one replica at 70 % of what it carries."""
    from costsim.serving.engine_cost import replica_of
    from costsim.serving.simulation import simulate
    from costsim.serving.traffic import load_traffic

    assert cell.choice is not None and cell.estimate is not None
    rate = 0.7 * cell.choice.requests_per_s
    requests = int(max(min(rate * scenario.simulate_s, 20_000), 200))
    traffic = load_traffic({"arrivals": "poisson", "rate": rate, "requests": requests,
                            "input_tokens": round(cell.estimate.isl),
                            "output_tokens": round(cell.estimate.osl), "length_cv": 0.8},
                           folder=".", seed=scenario.seed)
    outcome = simulate(replica_of(cell.choice.deployment), traffic, seed=scenario.seed,
                       oversize="reject")
    return {"rate": rate, "requests": requests, "summary": outcome.summary(),
            "samples": samples_of(outcome)}


def samples_of(outcome: Any, most: int = 2000) -> dict[str, list[float]]:
    """Return per-request latencies, evenly thinned, for a distribution figure."""
    found = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        values = np.asarray(outcome.latency(name), float)
        values = np.sort(values[np.isfinite(values)])
        step = max(len(values) // most, 1)
        found[name] = [float(v) for v in values[::step]]
    return found


def sizes(entry: ModelEntry) -> tuple[float, float]:
    """Return total and active parameters of an entry."""
    return float(total_parameters(entry.model)), float(active_parameters(entry.model))
