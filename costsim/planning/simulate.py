"""Traffic through a simulated fleet, with what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim.economics.prices import Rent
from costsim.engine.deployment import Deployment
from costsim.errors import InputError
from costsim.planning.estimate import provenance_of
from costsim.planning.fleet_case import FleetCase, Part, RunOptions
from costsim.planning.replications import Progress, Run, run_all
from costsim.planning.simulation_bill import Bill, bill_of
from costsim.planning.simulation_load import Load, check_load
from costsim.serving.results import SimulationResult
from costsim.serving.traffic import Traffic


@dataclass(frozen=True)
class Simulated:
    """A simulation with its money.

    Args:
        case: what was simulated.
        runs: figures of each seed, money included.
        result: of the first seed, request by request.
        bill: of the first seed.
        loads: offered rate and capacity of each pool.
    """

    case: FleetCase
    runs: tuple[Run, ...]
    result: SimulationResult
    bill: Bill
    loads: Mapping[str, Load]

    @property
    def deployment(self) -> Deployment:
        """The first kind of replica."""
        return self.case.parts[0].deployment

    @property
    def replicas(self) -> int:
        """Replicas at the start."""
        return sum(part.count for part in self.case.parts)

    @property
    def rent(self) -> Rent:
        """Price of an accelerator of the first kind."""
        return self.case.parts[0].rent

    @property
    def figures(self) -> dict[str, Any]:
        """Figures of the run, or means over the seeds; ``intervals`` are 90 % ones."""
        return mean_of([run.figures for run in self.runs], intervals_over(self.runs))

    @property
    def capacity_requests_per_s(self) -> float:
        """Of all pools, by the steady state."""
        return sum(load.capacity for load in self.loads.values())

    @property
    def offered_requests_per_s(self) -> float:
        """Mean rate of the traffic of all pools; 0 for closed loops."""
        return sum(load.offered for load in self.loads.values())

    @property
    def usd(self) -> float:
        """Cost of the run (mean over the seeds)."""
        return float(self.figures["usd"])

    @property
    def usd_per_query(self) -> float:
        """Cost per finished request."""
        return float(self.figures["usd_per_query"])

    @property
    def usd_per_million_tokens(self) -> float:
        """Cost per million tokens, in and out, of finished requests."""
        return float(self.figures["usd_per_million_tokens"])

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        runs = [{"seed": run.seed, **run.figures} for run in self.runs]
        return {
            "title": self.case.title,
            "fleet": [_part(part, usd) for part, usd in zip(self.case.parts, self.bill.parts,
                                                           strict=True)],
            "load": {name: load.as_dict() for name, load in self.loads.items()},
            "replications": len(self.runs),
            **self.figures,
            **({"runs": runs} if len(runs) > 1 else {}),
        }  # fmt: skip

    def write_requests(self, path: Path | str) -> Path:
        """Write the requests of the first seed with their cost, as CSV or Parquet."""
        return self.result.write_requests(path, usd=self.bill.requests)

    def write_timelines(self, path: Path | str) -> Path:
        """Write the timelines of the first seed, with $ per hour, as CSV or Parquet."""
        lines = dict(self.result.timelines)
        lines["usd_per_hour"] = self.bill.usd_per_hour
        return replace(self.result, timelines=lines).write_timelines(path)


def _part(part: Part, usd: np.ndarray) -> dict[str, object]:
    d = part.deployment
    return {
        "pool": part.pool, "role": part.role, "model": d.model.name, "hardware": d.hardware.name,
        "layout": str(d.layout), "engine": d.settings.name, "replicas": part.count,
        "accelerators": int(d.accelerators) * part.count, "provenance": provenance_of(d),
        "price": part.rent.note, "usd_per_accelerator_hour": [float(v) for v in part.rent],
        "usd": usd.tolist(),
    }  # fmt: skip


def simulate(
    deployment: Deployment | FleetCase,
    traffic: Traffic | Mapping[str, Any] | None = None,
    *,
    replicas: int = 1,
    router: str = "least_outstanding",
    price: str = "on_demand",
    folder: Path | str = ".",
    scheduler: Mapping[str, Any] | None = None,
    operations: Mapping[str, Any] | None = None,
    checkpoint: Path | str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Simulated:
    """Return what happens and what it costs when traffic meets a fleet.

    Args:
        deployment: what serves; or a whole fleet (`load_fleet`), and then only ``checkpoint``,
            ``progress`` and ``options`` may follow.
        traffic: a Traffic, or its table (see the page on serving).
        replicas, router, price: of the deployment.
        folder: where a trace named in the table lies.
        scheduler: fields of the scheduler that differ from the engine's settings.
        operations: ``autoscaler``, ``admission``, ``failures``, ``rolling_restart``, ``retries``.
        checkpoint: file that a long run is saved in every few seconds, and goes on from.
        progress: told the simulated time (s), the requests done and those known.
        options: fields of `RunOptions`, such as ``seed``, ``replications``, ``warmup_s``.

    Raises:
        UnstableLoadError: the offered load is above the capacity, which the message names.
        InputError: a request is longer than the model's context, or an option is unknown.
    """
    if isinstance(deployment, FleetCase):
        case = replace(deployment, options=_options(deployment.options, options))
    else:
        if traffic is None:
            raise InputError("simulate: a deployment needs traffic")
        rules = dict(operations or {})
        events: dict[str, Any] = {
            k: rules.pop(k) for k in ("retries", "failures", "rolling_restart") if k in rules
        }
        part = Part(deployment, replicas, price=price, scheduler=dict(scheduler or {}))
        case = FleetCase(
            (part,), {"default": traffic}, {"default": {"router": router, **rules}}, events,
            _options(RunOptions(), options), Path(folder),
        )  # fmt: skip
    flows = case.flows(case.options.seed)
    loads = check_load(case, flows)
    runs, result = run_all(case, flows, checkpoint, progress)
    return Simulated(case, tuple(runs), result, bill_of(case.parts, result), loads)


def _options(base: RunOptions, changes: Mapping[str, Any]) -> RunOptions:
    from costsim.errors import unknown_name

    known = {field.name for field in fields(RunOptions)}
    for name in changes:
        if name not in known:
            raise unknown_name("option", name, known)
    return replace(base, **changes)


def mean_of(tables: list[dict[str, Any]], intervals: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the mean of every number in several tables of the same keys.

    Args:
        tables: of figures.
        intervals: to stand in place of those of the single runs.
    """
    if len(tables) == 1:
        return tables[0]
    found: dict[str, Any] = {}
    for key, value in tables[0].items():
        rows = [table[key] for table in tables]
        if key == "intervals":
            found[key] = intervals
        elif isinstance(value, dict):
            found[key] = mean_of(rows, None)
        elif isinstance(value, bool):
            found[key] = all(rows)
        elif isinstance(value, list):
            found[key] = np.mean(rows, axis=0).tolist()
        else:
            found[key] = float(np.mean(rows))
    return found


def intervals_over(runs: tuple[Run, ...]) -> dict[str, Any]:
    """Return 90 % intervals of the mean over replications; one number a key, or a table."""
    from costsim.serving.confidence import interval_of
    from costsim.serving.summary import LATENCIES, STATISTICS

    def over(values: list[float]) -> list[float]:
        return list(interval_of(values))

    found: dict[str, Any] = {
        name: {s: over([run.figures[name][s] for run in runs]) for s in STATISTICS}
        for name in LATENCIES
    }
    for name in ("requests_per_s", "output_tokens_per_s", "utilisation", "usd", "usd_per_query",
                 "usd_per_million_tokens"):  # fmt: skip
        found[name] = over([run.figures[name] for run in runs])
    return found
