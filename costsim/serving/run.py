"""Drive a fleet to its end inside SimPy, and gather what it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from costsim.errors import InputError
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
    if not fleet.finished:
        fleet.now = max(fleet.now, env.now)
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
                replica.prompt_tokens, up, energy, spec.kind, spec.accelerators,
            )
        )  # fmt: skip
        accelerators += spec.accelerators
        held += spec.accelerators * up
    start = float(table["arrival"].min())
    if warmup_s and float(table["arrival"].max()) < start + warmup_s:
        raise InputError(f"warmup_s = {warmup_s:g}: no request arrives later; none would be left")
    return SimulationResult(
        table, float(fleet.now) - start, uses, accelerators, held, gaps,
        sampler.columns() if sampler else {}, traffic.classes, traffic.pools, warmup_s, complete,
    )  # fmt: skip


@dataclass
class WarmUp:
    """Has replicas forget what they did before a time.

    Args:
        at_s: simulated time at which figures begin.
    """

    at_s: float
    next_time: float = float("inf")
    over: bool = False

    def begin(self, fleet: Fleet, now: float) -> None:
        """Plan the end of the warm-up."""
        self.next_time = float("inf") if self.over else max(now, self.at_s)

    def act(self, fleet: Fleet, now: float) -> None:
        """End the warm-up."""
        for replica in fleet.replicas:
            replica.forget(now)
        self.over, self.next_time = True, float("inf")


def with_warmup(controllers: Sequence[Any], traffic: Traffic, warmup_s: float) -> list[Any]:
    """Return controllers and, where there is a warm-up, the one that ends it.

    Args:
        controllers: of the fleet.
        traffic: whose first arrival the warm-up counts from.
        warmup_s: length; it must be shorter than the traffic.

    Raises:
        InputError: nothing would be left.
    """
    if not 0 <= warmup_s < float("inf"):
        raise InputError(f"warmup_s = {warmup_s}: must be finite and not negative")
    if not warmup_s:
        return list(controllers)
    first, last = float(traffic.arrival[0]), float(traffic.arrival[-1])
    if first + warmup_s > last and traffic.sessions is None:
        raise InputError(
            f"warmup_s = {warmup_s:g}: the last request arrives after {last - first:.4g} s, so "
            "that none would be left"
        )
    return [*controllers, WarmUp(first + warmup_s)]
