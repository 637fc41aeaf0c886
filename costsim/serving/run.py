"""Drive a fleet to its end inside SimPy, and gather what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from costsim.serving.fleet import Fleet, simpy_process
from costsim.serving.intervals import IntervalCounter
from costsim.serving.results import COLUMNS, ReplicaUse, SimulationResult
from costsim.serving.timelines import Sampler
from costsim.serving.traffic import Traffic


def drive(
    fleet: Fleet,
    controllers: list[Any],
    *,
    until_s: float = float("inf"),
    time_limit_s: float | None = None,
    sample_s: float = 0.0,
    progress: Callable[[float, int, int], None] | None = None,
    checkpoint: Callable[[Fleet, list[Any]], None] | None = None,
) -> tuple[Sampler | None, bool]:
    """Run a fleet until nothing is left to do; return its samples and whether it got that far.

    Args:
        fleet: built by `costsim.serving.simulation.build_fleet`, or read from a checkpoint.
        controllers: each has ``next_time`` and ``act(fleet, now)``, which moves ``next_time`` on.
        until_s: simulated time at which to stop.
        time_limit_s: wall-clock time at which to stop.
        sample_s: distance of samples; 0 for none.
        progress: told simulated time, requests done, requests known.
        checkpoint: called now and then with all state there is.
    """
    import simpy

    sampler = next((c for c in controllers if isinstance(c, Sampler)), None)
    if sample_s > 0 and sampler is None:
        sampler = Sampler(sample_s, fleet.now)
        controllers.append(sampler)
    env = simpy.Environment(initial_time=fleet.now)
    done = env.event()
    started, stopped = time.monotonic(), [False]

    def pause(_: Fleet) -> bool:
        if progress is not None:
            progress(fleet.now, fleet.done, len(fleet.requests))
        if checkpoint is not None:
            checkpoint(fleet, controllers)
        late = time_limit_s is not None and time.monotonic() - started > time_limit_s
        stopped[0] = late
        return late

    for controller in controllers:
        controller.begin(fleet, env.now)
        env.process(_process(env, fleet, controller))
    watched = progress is not None or checkpoint is not None or time_limit_s is not None
    env.process(simpy_process(fleet, env, done, pause if watched else None))
    end = done
    if until_s != float("inf"):
        end = done | env.timeout(max(0.0, until_s - env.now))
    env.run(until=end)
    fleet.now = max(fleet.now, min(until_s, fleet.now)) if fleet.finished else max(
        fleet.now, env.now
    )
    if progress is not None:
        progress(fleet.now, fleet.done, len(fleet.requests))
    return sampler, not stopped[0]


def _process(env: Any, fleet: Fleet, controller: Any) -> Any:
    """One controller as a SimPy process."""
    while controller.next_time != float("inf"):
        yield env.timeout(max(0.0, controller.next_time - env.now))
        fleet.now = max(fleet.now, env.now)
        controller.act(fleet, env.now)


def collect(
    fleet: Fleet, traffic: Traffic, sampler: Sampler | None, warmup_s: float, complete: bool
) -> SimulationResult:
    """Return the result of a fleet that has run."""
    table = {name: fleet.requests.column(name) for name in COLUMNS}
    gaps = IntervalCounter()
    uses, accelerators, held = [], 0, 0.0
    for replica in fleet.replicas:
        gaps.merge(replica.intervals)
        up = replica.up_time(fleet.now)
        spec, busy = replica.spec, replica.busy_s
        energy = spec.busy_w * busy + spec.idle_w * max(0.0, up - busy)
        per_busy = 1.0 / busy if busy else 0.0
        uses.append(
            ReplicaUse(
                replica.pool.name, spec.role, busy, replica.batch_s * per_busy,
                replica.block_s * per_busy / replica.blocks, replica.steps,
                replica.prompt_tokens, up, energy,
            )
        )  # fmt: skip
        accelerators += spec.accelerators
        held += spec.accelerators * up
    start = float(table["arrival"].min())
    return SimulationResult(
        table, float(fleet.now) - start, uses, accelerators, held, gaps,
        sampler.columns() if sampler else {}, traffic.classes, traffic.pools, warmup_s, complete,
    )  # fmt: skip


def percentile_table(results: list[SimulationResult], name: str) -> np.ndarray:
    """Return mean, p50, p90 and p99 of a latency, one row per run."""
    return np.array([list(result.statistics(name).values()) for result in results])
