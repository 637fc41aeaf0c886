"""What a scenario's figures say, in plain words; every sentence is computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from costsim.models.architecture import is_moe
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.planning.results import Cell, ExpertPoint, ScenarioResult

# What an operator of the breakdown stands for when a design is limited by it.
CAUSES = {
    "experts": "more experts are touched: their weights have to be read",
    "expert dispatch": "tokens travel to their experts (all-to-all)",
    "expert combine": "results travel back (all-to-all)",
    "all-reduce": "the model is spread over more accelerators that sum up",
    "attention (decode)": "the KV cache has to be read",
    "host": "the host keeps the accelerators waiting",
}


def _usd(value: float) -> str:
    return format_quantity(value, "money")


def findings(result: ScenarioResult) -> list[str]:
    """Return the sentences of a scenario's run."""
    lines = _verdicts(result)
    for workload in result.scenario.workloads:
        for hardware in result.scenario.hardware:
            lines += _cheapest(result, hardware.key, workload.key, workload.title)
    lines += _expert_sweep(result)
    lines += _users(result)
    lines += _against_api(result)
    lines += _simulated(result)
    return lines


def _verdicts(result: ScenarioResult) -> list[str]:
    """Return for each workload where mixtures of experts beat dense models, if there are both."""
    kinds = {is_moe(m.model) for m in result.scenario.models if not m.reference}
    if kinds != {True, False}:
        return []
    return [f"{w.title}: does sparsity pay? {_verdict(result, w.key)}."
            for w in result.scenario.workloads]


def _verdict(result: ScenarioResult, workload: str) -> str:
    """Return on which hardware the cheapest sparse model beats every dense one, from which load."""
    said: dict[str, list[str]] = {}
    for hardware in (h.key for h in result.scenario.hardware):
        load = _pays_from(result, hardware, workload)
        if load is None:
            said.setdefault("not at any load", []).append(hardware)
        elif math.isnan(load):
            said.setdefault("nothing fits and meets the targets", []).append(hardware)
        elif load == 0.0:
            said.setdefault("yes, at every load", []).append(hardware)
        else:
            above = f"yes, above {format_quantity(load, 'rate')}"
            said.setdefault(above, []).append(hardware)
    return "; ".join(f"{what} on {', '.join(where)}" for what, where in said.items())


def _pays_from(result: ScenarioResult, hardware: str, workload: str) -> float | None:
    """Return the least load at which a sparse model is cheapest; None: at none, NaN: no model."""
    curves = {c.name: c for c in result.curves.get((hardware, workload), ())}
    cells = [c for c in _candidates(result, hardware, workload) if c.name in curves]
    if not cells:
        return math.nan
    load = np.geomspace(1e-4, max(curves[c.name].capacity_requests_per_s for c in cells), 4000)
    best = {True: np.full(load.shape, np.inf), False: np.full(load.shape, np.inf)}
    for cell in cells:
        curve, kind = curves[cell.name], is_moe(cell.model.model)
        cost = curve.without_steps(load)
        cost[load > curve.capacity_requests_per_s] = np.inf
        best[kind] = np.minimum(best[kind], cost)
    sparse = np.flatnonzero(best[True] < best[False] * (1 - 1e-9))
    if not len(sparse):
        return None
    return 0.0 if sparse[0] == 0 else float(load[sparse[0]])


def _simulated(result: ScenarioResult) -> list[str]:
    """Return what the simulator says of the designs that the steady state chose."""
    cells = result.found(workload=result.scenario.workloads[0].key)
    lines = []
    for name, found in result.latencies.items():
        ttft, tpot = found["summary"]["ttft_s"], found["summary"]["tpot_s"]
        cell = next(c for c in cells if _simulated_name(c) == name)
        held = _held(result, cell)
        verdict = "meets the targets in the mean" if held else "misses the targets in the mean"
        if not held and not cell.reason:
            verdict += ", though the steady state meets them: its cost is a lower bound"
        lines.append(
            f"Simulated, {name} at 70 % of its capacity: TTFT p50 "
            f"{format_quantity(ttft['p50'], 'time')}, p99 {format_quantity(ttft['p99'], 'time')}; "
            f"TPOT p50 {format_quantity(tpot['p50'], 'time')}, "
            f"p99 {format_quantity(tpot['p99'], 'time')}; {verdict}.")
    return lines


def _simulated_name(cell: Cell) -> str:
    return f"{cell.name} on {cell.hardware.key}"


def _held(result: ScenarioResult, cell: Cell) -> bool | None:
    """Return whether a design meets the targets in the simulator; None where it was not run."""
    found = result.latencies.get(_simulated_name(cell))
    if found is None:
        return None
    target, summary = result.scenario.workloads[0].target, found["summary"]
    return bool(summary["ttft_s"]["mean"] <= target.ttft_s
                and summary["tpot_s"]["mean"] <= target.tpot_s)


def _candidates(result: ScenarioResult, hardware: str, workload: str) -> list[Cell]:
    """Return the cells that meet the targets and are no mere bounds."""
    return [c for c in result.found(hardware, workload) if not c.reason and not c.model.reference]


def _baseline(result: ScenarioResult, cells: list[Cell]) -> Cell | None:
    return next((c for c in cells if c.model.key == result.scenario.baseline), None)


def _cheapest(result: ScenarioResult, hardware: str, workload: str, title: str) -> list[str]:
    cells = _candidates(result, hardware, workload)
    where = f"{title} on {hardware}"
    if not cells:
        return [f"{where}: nothing fits the fleet and meets the targets."]
    best = min(cells, key=lambda c: float(c.estimate.usd_per_query) if c.estimate else 0.0)
    base = _baseline(result, cells)
    assert best.estimate is not None
    price = _usd(float(best.estimate.usd_per_query))
    text = f"{where}: at full load the cheapest is {best.name} at {price} a query"
    if base is not None and base.estimate is not None and base is not best:
        ratio = float(base.estimate.usd_per_query) / float(best.estimate.usd_per_query)
        sure = _apart(best, base)
        text += f", {ratio:.1f}x less than {base.name} ({sure})"
    elif base is None:
        text += "; the baseline does not fit or misses the targets"
    if workload == result.scenario.workloads[0].key and _held(result, best) is False:
        text += "; but the simulator has it miss the targets at 70 % of that load already (below)"
    return [text + ".", *_crossings(result, hardware, workload, where)]


def _crossings(result: ScenarioResult, hardware: str, workload: str, where: str) -> list[str]:
    """Return one sentence for each load at which designs change places."""
    references = {m.title for m in result.scenario.models if m.reference}
    above: dict[tuple[str, str], list[str]] = {}
    for cross in result.crossovers.get((hardware, workload), ()):
        if not {cross.cheaper_below, cross.cheaper_above} & references:
            load = format_quantity(cross.requests_per_s, "rate")
            above.setdefault((load, cross.cheaper_below), []).append(cross.cheaper_above)
    return [f"{where}: below {load} {below} is cheaper, above it {_listed(names)}."
            for (load, below), names in above.items()]


def _listed(names: list[str]) -> str:
    return " and ".join(["; ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _apart(a: Cell, b: Cell) -> str:
    """Return whether two costs differ by more than their kernel-time errors."""
    assert a.estimate is not None and b.estimate is not None
    low = a.estimate.requests_per_s.log_error_low
    high = b.estimate.requests_per_s.log_error_low
    ratio = float(b.estimate.usd_per_query) / float(a.estimate.usd_per_query)
    z = math.log(max(ratio, 1.0)) / max(math.hypot(low, high), 1e-9)
    return "beyond the model's error" if z > 1.645 else "within the model's error"


def _expert_sweep(result: ScenarioResult) -> list[str]:
    lines = []
    for hardware in {p.hardware: None for p in result.sweep}:
        points = [p for p in result.sweep if p.hardware == hardware]
        good = [p for p in points if p.estimate is not None and not p.reason]
        missing = [p for p in points if p.estimate is None or p.reason]
        if good:
            lines += _turning_point(hardware, good)
        if missing:
            counts = ", ".join(str(p.experts) for p in missing)
            lines.append(f"{hardware}: {counts} experts cannot be served "
                         f"({_short(missing[0].reason)}).")
    return lines


def _short(reason: str) -> str:
    return reason if len(reason) < 140 else reason[:137] + "…"


def _turning_point(hardware: str, points: list[ExpertPoint]) -> list[str]:
    def cost(p: ExpertPoint) -> float:
        return float(p.estimate.usd_per_query) if p.estimate else float("inf")

    best, last = min(points, key=cost), points[-1]
    sizes = f"{best.experts} experts ({format_quantity(best.total_parameters, 'count')} parameters)"
    if last is best:
        return [f"{hardware}: at equal active parameters the cost per query does not rise up to "
                f"{sizes}."]
    rise = 100 * (cost(last) / cost(best) - 1)
    return [f"{hardware}: at equal active parameters the cost per query is least at {sizes} and "
            f"{rise:.0f} % higher at {last.experts} experts: {_cause(best, last)}."]


def _cause(best: ExpertPoint, last: ExpertPoint) -> str:
    """Return the part of a token's accelerator time that grew most between two designs."""
    assert best.estimate is not None and last.estimate is not None
    before, after = _per_token(best), _per_token(last)
    grown = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in after}
    name = max(grown, key=lambda n: grown[n])
    n_best = int(best.estimate.deployment.accelerators)
    n_last = int(last.estimate.deployment.accelerators)
    text = CAUSES.get(name, f"{name} takes longer")
    if n_last > n_best:
        text += f"; the weights have to be resident on {n_last} accelerators and not {n_best}"
    return text


def _per_token(point: ExpertPoint) -> dict[str, float]:
    """Return accelerator seconds per output token by operator of the decode step."""
    assert point.estimate is not None
    weight = float(point.estimate.deployment.accelerators) / point.estimate.batch
    parts = point.estimate.point.decode.by_operator
    return {name: float(value) * weight for name, value in parts.items()}


def _users(result: ScenarioResult) -> list[str]:
    lines = []
    for workload in result.scenario.workloads:
        if not (workload.users and workload.queries_per_user_day):
            continue
        cells = _candidates(result, "", workload.key)
        if not cells:
            continue
        best = min(cells, key=lambda c: float(c.estimate.usd_per_query) if c.estimate else 0.0)
        assert best.estimate is not None
        month = float(best.estimate.usd_per_query) * workload.queries_per_user_day * 30
        lines.append(f"{workload.title}: {format_quantity(workload.users, 'count')} users with "
                     f"{workload.queries_per_user_day:g} queries a day cost at full load "
                     f"{_usd(month)} a user and month ({best.name} on {best.hardware.key}), "
                     f"{_usd(month * workload.users)} in all.")
    return lines


def _against_api(result: ScenarioResult) -> list[str]:
    lines = []
    for price in result.scenario.api_prices:
        for workload in result.scenario.workloads:
            public = (workload.isl * float(price["input_usd_per_million"])
                      + workload.osl * float(price["output_usd_per_million"])) / 1e6
            cells = _candidates(result, "", workload.key)
            if not cells:
                continue
            best = min(cells, key=lambda c: float(c.estimate.usd_per_query) if c.estimate else 0.0)
            assert best.estimate is not None
            share = 100 * float(best.estimate.usd_per_query) / public if public else 0.0
            lines.append(f"{workload.title}: the API price of {price['name']} ({price['date']}) is "
                         f"{_usd(public)} a query; the cheapest deployment here at full load costs "
                         f"{share:.0f} % of it ({best.name} on {best.hardware.key}).")
    return lines


def warnings(result: ScenarioResult) -> list[str]:
    """Return what a reader has to know before believing the figures."""
    lines = []
    for entry in result.scenario.models:
        if entry.model.provenance in ("rumoured", "hypothetical", "unverified"):
            note = f"{entry.title}: {entry.model.provenance}"
            lines.append(f"{note}. {entry.caveat}".strip() if entry.caveat else f"{note}.")
    rents = {c.hardware.key: c.estimate.rent.note for c in result.cells if c.estimate}
    lines += [f"Prices of {name} are stale: {rent}." for name, rent in rents.items()
              if "STALE" in rent]
    missed = [c for c in result.cells if c.reason]
    for cell in missed:
        lines.append(f"{cell.name} on {cell.hardware.key}, {cell.workload.title}: "
                     f"{_short(cell.reason)}.")
    return lines
