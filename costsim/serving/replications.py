"""Several runs with different seeds, or parts of one long run, in parallel processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.serving.confidence import interval_of
from costsim.serving.fleet import ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.simulation import simulate
from costsim.serving.traffic import Traffic


@dataclass(frozen=True)
class Replications:
    """Figures of several runs.

    Args:
        summaries: of each run, in order of their seeds.
    """

    summaries: list[dict[str, Any]]

    def values(self, figure: str, statistic: str = "") -> np.ndarray:
        """Return one figure of every run, such as ``("ttft_s", "p99")``."""
        rows = [run[figure][statistic] if statistic else run[figure] for run in self.summaries]
        return np.array(rows, dtype=float)

    def interval(
        self, figure: str, statistic: str = "", confidence: float = 0.90
    ) -> tuple[float, float]:
        """Return Student's interval of the mean of a figure over the runs."""
        return interval_of(self.values(figure, statistic), confidence)


def replicate(
    run: Callable[[int], SimulationResult], seeds: Sequence[int], processes: int = 1
) -> Replications:
    """Return the figures of ``run(seed)`` for each seed.

    Args:
        run: makes traffic and simulates it; at module level where there are several processes.
        seeds: one run each; the same seeds give the same figures with any number of processes.
        processes: that run at once.
    """
    if not seeds:
        raise InputError("replications: at least one seed is needed")
    if processes <= 1:
        return Replications([run(seed).summary() for seed in seeds])
    with ProcessPoolExecutor(processes) as pool:
        return Replications(list(pool.map(_Summarise(run), seeds)))


class _Summarise:
    def __init__(self, run: Callable[[int], SimulationResult]) -> None:
        self.run = run

    def __call__(self, seed: int) -> dict[str, Any]:
        return self.run(seed).summary()


def simulate_parts(
    spec: ReplicaSpec,
    part_of: Callable[[int], Traffic],
    parts: int,
    processes: int = 2,
    router: str = "least_outstanding",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the figures of a fleet cut into equal parts, each with its share of the traffic.

    This is the fleet behind a front end that deals requests out at random and one router per part,
    as large services are run; each part is made and simulated inside a process of its own, so that
    memory holds only ``processes`` parts at a time.

    Args:
        spec: the whole fleet; ``count`` must be a multiple of ``parts``.
        part_of: makes the traffic of part 0 … ``parts - 1``; at module level.
        parts: to cut into.
        processes: that run at once.
        router: of each part.
        seed: of the run; each part has its own from it.
    """
    if parts < 1 or spec.count % parts:
        raise InputError(f"{spec.count} replicas cannot be cut into {parts} equal parts")
    one = replace(spec, count=spec.count // parts)
    jobs = [(one, part_of, part, router, seed) for part in range(parts)]
    if processes <= 1:
        return [_simulate_part(job) for job in jobs]
    with ProcessPoolExecutor(processes, max_tasks_per_child=1) as pool:
        return list(pool.map(_simulate_part, jobs))


def _simulate_part(job: tuple[ReplicaSpec, Callable[[int], Traffic], int, str, int]) -> Any:
    spec, part_of, part, router, seed = job
    result = simulate(
        spec, part_of(part), router=router, seed=seed * 1_000_003 + part, oversize="reject"
    )
    return result.summary()
