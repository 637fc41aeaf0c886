"""The runs of a simulation: one for each seed, in parallel processes, saved on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim import __version__
from costsim.planning.executor import make_executor
from costsim.planning.fleet_case import FleetCase, together
from costsim.planning.simulation_bill import bill_of
from costsim.serving.checkpoint import Checkpoint, run_resumably
from costsim.serving.pool import ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.simulation import build_fleet, simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Traffic

Progress = Callable[[float, int, int], None]


@dataclass(frozen=True)
class Run:
    """Figures of one seed, money included."""

    seed: int
    figures: dict[str, Any]


def run_all(
    case: FleetCase, flows: Mapping[str, Traffic], checkpoint: Path | str | None = None,
    progress: Progress | None = None,
) -> tuple[list[Run], SimulationResult]:
    """Return the figures of every seed, and the whole result of the first.

    Args:
        case: what to simulate; ``options`` say how many seeds, and in how many processes.
        flows: traffic of the first seed, by pool.
        checkpoint: file that each run is saved in (with ``.1``, ``.2`` … behind it for the further
            seeds) and goes on from; removed when all are done.
        progress: told simulated time, requests done and known of the first run.
    """
    count = case.options.replications
    paths = [_path(checkpoint, at) for at in range(count)]
    jobs = [(case, case.options.seed + at, paths[at], at == 0) for at in range(count)]
    if count == 1:
        run, result = run_one(case, case.options.seed, paths[0], True, flows, progress)
        runs, whole = [run], result
    else:
        runs, whole = _several(jobs, case.options.processes, progress)
    for path in paths:
        if path is not None and whole is not None and all(r.figures["complete"] for r in runs):
            path.unlink(missing_ok=True)
    assert whole is not None
    return runs, whole


def _several(
    jobs: list[tuple[FleetCase, int, Path | None, bool]], processes: int,
    progress: Progress | None,
) -> tuple[list[Run], SimulationResult | None]:
    executor = make_executor(workers=min(processes, len(jobs)))
    found: dict[int, Run] = {}
    whole = None
    try:
        for at, (run, result) in executor.run(_job, jobs):
            found[at] = run
            whole = whole or result
            if progress is not None:
                simulated = sum(float(r.figures["duration_s"]) for r in found.values())
                progress(simulated, len(found), len(jobs))
    finally:
        executor.close()
    return [found[at] for at in range(len(jobs))], whole


def _job(job: tuple[FleetCase, int, Path | None, bool]) -> tuple[Run, SimulationResult | None]:
    return run_one(*job)


def _path(checkpoint: Path | str | None, at: int) -> Path | None:
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    return path.with_name(f"{path.name}.{at}") if at else path


def run_one(
    case: FleetCase, seed: int, checkpoint: Path | None = None, whole: bool = True,
    flows: Mapping[str, Traffic] | None = None, progress: Progress | None = None,
) -> tuple[Run, SimulationResult | None]:
    """Return the figures of one seed, and its result where it is asked for.

    Args:
        case: what to simulate.
        seed: of traffic, routers and failures.
        checkpoint: file to save the run in, and to go on from.
        whole: whether to return the result.
        flows: the traffic, where it is at hand.
        progress: told simulated time, requests done and known.
    """
    flows = flows or case.flows(seed)
    traffic, options = together(flows), case.options
    specs, controls = case.specs(flows), case.controls(seed)
    if checkpoint is None:
        result = simulate(
            specs, traffic, seed=seed, mode=options.mode, oversize=options.oversize,
            warmup_s=options.warmup_s, until_s=options.until_s, sample_s=options.sample_s,
            time_limit_s=options.time_limit_s, invariants=options.invariants, progress=progress,
            **controls,
        )  # fmt: skip
    else:
        controllers = controls.pop("controllers")
        result = run_resumably(
            lambda: (
                build_fleet(specs, traffic, seed=seed, leaps=options.mode == "fast",
                            oversize=options.oversize, invariants=options.invariants, **controls),
                controllers,
            ),
            traffic,
            Checkpoint(checkpoint, key_of(case, seed, specs, traffic), options.checkpoint_every_s),
            warmup_s=options.warmup_s, until_s=options.until_s, sample_s=options.sample_s,
            time_limit_s=options.time_limit_s, progress=progress, keep=True,
        )  # fmt: skip
    bill = bill_of(case.parts, result)
    figures = result.summary() | {
        "usd": bill.usd, "usd_range": [bill.usd * ratio for ratio in bill.range],
        "usd_per_query": bill.usd / max(int(result.counted.sum()), 1),
        "usd_per_million_tokens": _per_million(result, bill.usd),
    }  # fmt: skip
    for kind in ("classes", "pools"):
        for name, money in getattr(bill, kind).items():
            figures[kind][name] |= money
    return Run(seed, figures), result if whole else None


def _per_million(result: SimulationResult, usd: float) -> float:
    done, table = result.counted, result.table
    tokens = float((table["prompt"] + table["output"])[done].sum())
    return usd / max(tokens, 1.0) * 1e6


def key_of(
    case: FleetCase, seed: int, specs: Sequence[ReplicaSpec], traffic: Traffic
) -> str:
    """Return a fingerprint of all that a run depends on, the same in every process."""
    options = replace(
        case.options, processes=1, time_limit_s=None, replications=1, seed=seed,
        checkpoint_every_s=0.0,
    )  # fmt: skip
    digest = hashlib.sha256(repr((__version__, options)).encode())
    digest.update(json.dumps([case.events, case.operations], sort_keys=True).encode())
    for spec in specs:
        cost: Any = spec.cost
        tables = [grid.values for grid in (cost.decodes, cost.prompts, cost.shared)]
        plain = replace(spec, cost=AffineCost(1.0), lockstep=None)
        digest.update(repr((plain, tables)).encode())
    digest.update(repr((traffic.classes, traffic.sessions, traffic.hash_tokens)).encode())
    for values in (traffic.arrival, traffic.prompt, traffic.output, *traffic.columns.values()):
        digest.update(np.asarray(values).tobytes())
    for hashes in traffic.block_hashes or ():
        digest.update(np.asarray(hashes, np.int64).tobytes())
    return digest.hexdigest()
