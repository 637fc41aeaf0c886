"""A plan in the serving simulator: the worst hours of each pool, under requests one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.planning.executor import Executor
from costsim.planning.fingerprint import fingerprint
from costsim.planning.milp import Solution
from costsim.planning.plan_fleet import Problem
from costsim.planning.plan_options import PlanOptions
from costsim.planning.plan_points import Candidate
from costsim.planning.study import Study, run_study
from costsim.planning.workload import Demand
from costsim.serving.confidence import interval_of
from costsim.serving.engine_cost import replica_of
from costsim.serving.fleet import Link
from costsim.serving.simulation import simulate
from costsim.serving.traffic import Traffic

MOST_REPLICAS = 8
_MOST_REQUESTS = 40_000
_MOST_TIMES = 4  # as many replications as asked for, where they do not decide


@dataclass(frozen=True)
class Held:
    """One target of one demand in one hour of one pool, simulated.

    Args:
        pool: index. hour: of the plan. demand: name.
        measure: such as ``p99 TTFT``.
        target_s, value_s: and the mean over replications.
        upper_s: bound that the value stays below with the confidence asked for.
        utilisation: share of the time that the replicas are busy.
        load: of a replica, over what the plan counts on.
    """

    pool: int
    hour: int
    demand: str
    measure: str
    target_s: float
    value_s: float
    upper_s: float
    utilisation: float
    load: float = 1.0

    @property
    def held(self) -> bool:
        """Whether the target holds with confidence."""
        return bool(self.upper_s <= self.target_s)


@dataclass(frozen=True)
class HourRun:
    """What to simulate: replicas of a pool in one hour, and their share of the demands."""

    pool: int
    hour: int
    candidate: Candidate
    replicas: int
    rates: tuple[float, ...]
    load: float = 1.0


def hours_to_check(problem: Problem, found: Solution, options: PlanOptions) -> list[HourRun]:
    """Return for each pool in use the hour with least headroom and that with fewest replicas.

    Replicas that may fail (N+1) are taken away; more than 8 replicas are stood for by 8 with
    their share of the load, which queue a little more.
    """
    runs = []
    for c in range(len(problem.chosen)):
        capacity = np.array(problem.fleet.pools[c].capacity)
        standing = found.replicas[c] + found.spot[c]
        with np.errstate(divide="ignore", invalid="ignore"):
            need = np.nansum(np.where(capacity[:, None] > 0, found.served[:, c] / capacity[:, None],
                                      0.0), axis=0)  # fmt: skip
            load = np.where(need > 1e-6, need / np.maximum(standing - options.spare, 1), 0.0)
        if not load.any():
            continue
        few = np.where(load > 0.85 * load.max(), standing, np.inf)
        for h in sorted({int(np.argmax(load)), int(np.argmin(few))}):
            runs.append(_run(problem, found, options, c, h))
    return runs


def _run(problem: Problem, found: Solution, options: PlanOptions, c: int, h: int) -> HourRun:
    up = max(1, int(found.replicas[c, h] + found.spot[c, h]) - options.spare)
    used = min(up, MOST_REPLICAS)
    rates = tuple(float(r) * used / up for r in found.served[:, c, h])
    able = zip(problem.fleet.pools[c].capacity, found.served[:, c, h], strict=True)
    load = sum(float(y) / r for r, y in able if r > 0) / up
    return HourRun(c, h, problem.candidate(c), used, rates, load)


def check_plan(
    problem: Problem, found: Solution, options: PlanOptions,
    progress: Callable[[str], None] | None = None, executor: Executor | None = None,
    study: Study | None = None,
) -> list[Held]:
    """Return every target of the hours worth checking, simulated.

    Args:
        problem: what was planned. found: the fleet.
        options: confidence, replications, requests, seed. Where the means are within the targets
            but not surely so, up to four times the replications run.
        progress: told what is simulated.
        executor: where the replications run; None: here.
        study: keeps their results, so that a plan that was interrupted resumes.
    """
    runs = hours_to_check(problem, found, options)
    if progress is not None:
        progress(f"simulating {len(runs)} hours of {options.replications} replications")
    return judged(problem.demands, runs, options, executor, study)


def judged(
    demands: Sequence[Demand], runs: Sequence[HourRun], options: PlanOptions,
    executor: Executor | None = None, study: Study | None = None, times: int = _MOST_TIMES,
) -> list[Held]:
    """Return every target of some hours, simulated.

    Args:
        demands: of the plan. runs: hours. options, executor, study: as in `check_plan`.
        times: as many replications as asked for, at most.
    """
    results: list[list[dict[str, Any]]] = [[] for _ in runs]
    open_runs = list(range(len(runs)))
    for done in range(times):
        tasks = [
            (demands, runs[at], options.requests, options.seed + i) for at in open_runs
            for i in range(done * options.replications, (done + 1) * options.replications)
        ]  # fmt: skip
        told = [_described(*task) for task in tasks] if study is not None else None
        found_now = run_study(study, _simulated, tasks, executor, told)
        for place, result in enumerate(found_now):
            results[open_runs[place // options.replications]].append(result)
        open_runs = [at for at in open_runs
                     if _undecided(_judge(demands, runs[at], results[at],
                                          options.confidence))]  # fmt: skip
        if not open_runs:
            break
    return [row for run, mine in zip(runs, results, strict=True)
            for row in _judge(demands, run, mine, options.confidence)]  # fmt: skip


def _undecided(rows: Sequence[Held]) -> bool:
    """Return whether more replications may show that targets hold: all means are within them."""
    return all(row.value_s <= row.target_s for row in rows) and not all(r.held for r in rows)


def _simulated(task: tuple[Sequence[Demand], HourRun, int, int]) -> dict[str, Any]:
    return simulate_hour(*task)


def _described(
    demands: Sequence[Demand], run: HourRun, requests: int, seed: int
) -> dict[str, Any]:
    """Return what tells one simulated hour from every other."""
    c = run.candidate
    d = c.deployment
    return {
        "demands": [
            [n.name, n.model, n.isl, n.osl, n.length_cv, str(n.target), n.prefix_hit_share,
             0 if n.trace is None else int(n.trace.prompt.sum() + n.trace.output.sum())]
            for n in demands
        ],
        "pool": [c.name, d.model.name, c.role, c.batch_limit, str(d.precision), str(d.settings)],
        "calibration": fingerprint(d.calibration), "hardware": str(d.hardware),
        "replicas": run.replicas, "rates": list(run.rates), "requests": requests, "seed": seed,
    }  # fmt: skip


def simulate_hour(
    demands: Sequence[Demand], run: HourRun, requests: int, seed: int
) -> dict[str, Any]:
    """Return latencies by demand and utilisation of one simulated hour."""
    flow, names = traffic_of(demands, run, requests, seed)
    longest = int(np.max(flow.prompt + flow.output)) + 1
    specs, link = specs_of(run, longest, prefix_cache=flow.block_hashes is not None)
    result = simulate(
        specs, flow, seed=seed, oversize="reject", link=link, time_limit_s=60.0,
        warmup_s=float(flow.arrival[-1]) * 0.1,
    )  # fmt: skip
    if not result.complete:
        raise InputError("plan: the simulated hour did not end in time; the load is far too high")
    by_demand = {
        name: {
            "ttft_s": result.statistics("ttft_s", result.table["tenant"] == at),
            "tpot_s": result.statistics("tpot_s", result.table["tenant"] == at),
            "e2e_s": result.statistics("e2e_s", result.table["tenant"] == at),
        }
        for at, name in enumerate(names)
    }
    return {"demands": by_demand, "utilisation": result.utilisation}


def specs_of(
    run: HourRun, longest: int, prefix_cache: bool = False
) -> tuple[list[Any], Link | None]:
    """Return the replicas of an hour for the simulator, and the link of a disaggregated unit."""
    c = run.candidate
    # Limits of the scheduler are those of one data-parallel rank of one pipeline stage.
    ways = int(c.deployment.layout.pp) * int(c.deployment.layout.dp)
    rules: dict[str, Any] = {"max_num_seqs": max(1, int(c.batch_limit) // ways),
                             "prefix_cache": prefix_cache}
    if c.role == "both":
        return [replica_of(c.deployment, run.replicas, max_context=longest, **rules)], None
    roles: Any = (("prefill", c.prefill, {"prefix_cache": prefix_cache}),
                  ("decode", c.decode, rules | {"prefix_cache": False}))
    specs = [
        replica_of(c.deployment, run.replicas * n, role=role, max_context=longest, **extra)
        for role, n, extra in roles
    ]
    out = c.deployment.hardware.scale_out
    each = float(np.max(out.bandwidth_bytes_per_s)) * float(c.deployment.accelerators)
    return specs, Link(each, float(np.max(out.latency_s)))


def traffic_of(
    demands: Sequence[Demand], run: HourRun, least: int, seed: int
) -> tuple[Traffic, list[str]]:
    """Return the requests of an hour, those of several demands together as classes."""
    total = sum(run.rates)
    parts = [(d, r) for d, r in zip(demands, run.rates, strict=True) if r > 1e-9 * total]
    slowest = max(10.0 * (d.target.e2e_s if np.isfinite(d.target.e2e_s) else
                          run.candidate.ttft_s + d.osl * run.candidate.tpot_s) for d, _ in parts)
    span = max(least / total, slowest)
    span = min(span, _MOST_REQUESTS / total)
    flows = [d.requests(r, max(50, int(r * span)), seed + 101 * i)
             for i, (d, r) in enumerate(parts)]  # fmt: skip
    names = [d.name for d, _ in parts]
    return together(flows, [d for d, _ in parts]), names


def together(flows: Sequence[Traffic], demands: Sequence[Demand]) -> Traffic:
    """Return several flows in one pool, numbered by column ``tenant``."""
    arrival = np.concatenate([f.arrival for f in flows])
    order = np.argsort(arrival, kind="stable")
    tenant = np.concatenate([np.full(len(f), i) for i, f in enumerate(flows)])[order]
    size = math.gcd(*(f.hash_tokens for f in flows if f.block_hashes is not None))
    hashes = [h for at, f in enumerate(flows) for h in _hashes_of(f, at, size)]
    return replace(
        flows[0], arrival=arrival[order],
        prompt=np.concatenate([f.prompt for f in flows])[order],
        output=np.concatenate([f.output for f in flows])[order],
        block_hashes=[hashes[i] for i in order] if size else None,
        hash_tokens=size or flows[0].hash_tokens, columns={"tenant": tenant},
        classes=tuple(d.slo for d in demands), pools=("default",),
    )  # fmt: skip


def _hashes_of(flow: Traffic, at: int, size: int) -> list[tuple[Any, ...]]:
    """Return the hashes of a flow's blocks, cut to a size, apart from those of other flows."""
    if flow.block_hashes is None:
        return [()] * len(flow)
    parts = range(flow.hash_tokens // size)
    return [tuple((at, h, i) for h in row for i in parts) for row in flow.block_hashes]


def _judge(
    demands: Sequence[Demand], run: HourRun, results: list[dict[str, Any]], confidence: float
) -> list[Held]:
    held = []
    used = float(np.mean([r["utilisation"] for r in results]))
    for demand in demands:
        if demand.name not in results[0]["demands"]:
            continue
        for measure, name, statistic, target in measures(demand):
            values = [r["demands"][demand.name][name][statistic] for r in results]
            upper = interval_of(values, 2.0 * confidence - 1.0)[1] if len(values) > 1 else values[0]
            held.append(Held(run.pool, run.hour, demand.name, measure, target,
                             float(np.mean(values)), float(upper), used, run.load))  # fmt: skip
    return held


def measures(demand: Demand) -> list[tuple[str, str, str, float]]:
    """Return the finite targets of a demand: name, latency, statistic, seconds."""
    t = demand.target
    every = [
        ("mean TTFT", "ttft_s", "mean", t.ttft_s), ("mean TPOT", "tpot_s", "mean", t.tpot_s),
        ("mean E2E", "e2e_s", "mean", t.e2e_s), ("p99 TTFT", "ttft_s", "p99", t.ttft_p99_s),
        ("p99 TPOT", "tpot_s", "p99", t.tpot_p99_s),
    ]  # fmt: skip
    return [row for row in every if np.isfinite(row[3])]
