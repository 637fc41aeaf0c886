"""Times kernels and whole models alternately on this machine, for ``costsim validate engine``.

Rounds visit every kernel and every step once, in random order, a slice of the kernels before each
model: what disturbs the machine for a while disturbs both alike. Of each the median counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.kernels.measure.allocator import keep_freed_memory
from costsim.kernels.measure.cases import Case, Grid, all_cases
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.measure.run import as_tables, keep, reference_call
from costsim.kernels.measure.threads import clock_for, limited, load_average
from costsim.kernels.measure.timing import Timing, time_call
from costsim.kernels.measure.transformers_kernels import KINDS, TransformersBackend
from costsim.kernels.table import KernelTable
from costsim.validation.engine_models import Point, RunningModel, Spec

Progress = Callable[[int, int, str], None]
REFERENCE_EVERY_S = 2.0

# Kernels are measured at sizes of their own, between and around those of the models.
QUICK = Grid(
    rows=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    weights=((16, 640), (256, 256), (384, 640), (640, 640), (1536, 640), (640, 1536),
             (1280, 1280), (3584, 1280), (1280, 3584), (12000, 896)),
    heads=((8, 4, 64), (16, 4, 64), (8, 4, 128), (16, 4, 128)), batches=(1, 2, 6, 16, 40),
    lengths=(24, 48, 96, 192, 384, 768), contexts=(64, 192, 384, 768, 1536),
    experts=((384, 768, 8, 2), (640, 1280, 8, 2), (640, 384, 32, 4), (896, 192, 48, 4)),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256, 640),
    bytes=tuple(int(2048 * 2 ** (1.25 * i)) for i in range(14)), flop=8e9, scores_bytes=1e8,
)
FULL = Grid(
    rows=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048),
    weights=(*QUICK.weights, (128, 512), (896, 896), (1024, 512), (512, 1024), (2560, 896),
             (896, 2560), (1792, 1792), (512, 1792), (6400, 2304), (2304, 6400), (20000, 1536)),
    heads=(*QUICK.heads, (8, 8, 64), (32, 8, 64), (24, 8, 128)), batches=(1, 2, 4, 6, 12, 24, 64),
    lengths=(12, 24, 48, 96, 192, 384, 768, 1536), contexts=(64, 128, 384, 768, 1536, 3072),
    experts=(*QUICK.experts, (896, 2560, 8, 2), (1280, 3200, 8, 2), (512, 256, 64, 8)),
    tokens=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024),
    bytes=tuple(2048 * 2**i for i in range(17)), flop=6e10, scores_bytes=6e8,
)
# Sampling times of one kernel and of one step in a round, and the rounds.
QUICK_BUDGET, FULL_BUDGET = (0.03, 0.25, 2), (0.1, 1.0, 3)
# Matrices that one row is multiplied by besides: on a CPU that is a kernel of its own.
ONE_ROW_WEIGHTS = ((128, 512), (512, 128), (1024, 384), (384, 1024), (896, 896), (2560, 640),
                   (640, 2560), (1792, 896), (896, 1792), (2304, 1792), (5120, 1152))
# Choosing experts takes small tables; large ones would only cost time.
LARGEST_BYTES = {"routing": 1 << 20}


def engine_cases(grid: Grid, dtype: str, seed: int = 0) -> list[Case]:
    """Return the kernels to measure for models of one data type, in random order."""
    # transformers reads a prompt in one pass: no chunk follows cached tokens, which takes a mask
    # and with it another kernel.
    found = [c for c in all_cases(grid, (dtype,), seed)
             if c.operator != "elementwise" and not (
                 c.operator == "attention_prefill" and c.shape["context"])]
    found += [Case("gemm", {"m": 1, "n": n, "k": k, "dtype": dtype, "activation": dtype})
              for n, k in ONE_ROW_WEIGHTS]
    found += [Case("elementwise", {"bytes": size, "kind": kind}) for kind in KINDS
              for size in grid.bytes if size <= LARGEST_BYTES.get(kind, size)]
    found = list({c.key: c for c in found}.values())
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] for i in order]


@dataclass(frozen=True)
class Plan:
    """What is measured, how.

    Args:
        specs: models; cases: kernels.
        device: ``cpu`` or ``cuda``; dtype: ``fp32`` or ``bf16``; experts: implementation.
        threads: that work.
        kernel_s, step_s: sampling time of each in a round; rounds: how many.
    """

    specs: Sequence[Spec]
    cases: Sequence[Case]
    device: str
    dtype: str
    experts: str
    threads: int
    kernel_s: float
    step_s: float
    rounds: int

    @property
    def jobs(self) -> int:
        """Measurements in all."""
        return self.rounds * (len(self.cases) + sum(len(s.points) for s in self.specs))


@dataclass
class Measured:
    """What was measured.

    Args:
        tables: of kernels.
        steps: (model, step) → median time [s].
        spreads: (model, step) → slowest round over the fastest, less one.
        kernel_spread: the same for kernels, the median.
        parameters: of each model.
        noise: of the machine meanwhile.
        seconds: this run took; taken_over: measurements found in the journal.
    """

    tables: list[KernelTable]
    steps: dict[tuple[str, str], float]
    spreads: dict[tuple[str, str], float]
    kernel_spread: float
    parameters: dict[str, int]
    noise: NoiseReport
    seconds: float
    taken_over: int


@dataclass
class _Run:
    """One run in progress."""

    plan: Plan
    backend: TransformersBackend
    journal: Journal
    progress: Progress
    clock: Callable[[], float]
    noise: NoiseReport
    start: float = field(default_factory=time.perf_counter)
    next_reading: float = 0.0
    done: int = 0

    def timed(
        self, call: Callable[[], object], budget_s: float, aside: Callable[[], float]
    ) -> Timing:
        """Return the time of a call; on a GPU inside a captured graph, without launches."""
        if self.backend.device == "cuda":
            from costsim.kernels.gpu_harness.captured import device_time

            return device_time(self.backend.torch, call, 1, budget_s)
        return time_call(call, budget_s, clock=lambda: self.clock() - aside())

    def job(
        self, key: str, what: str, prepare: Callable[[], Any], budget_s: float,
        aside: Callable[[], float] = float,
    ) -> None:
        """Measure one thing, unless the journal holds it.

        Args:
            key: in the journal; what: to say in the meantime.
            prepare: returns a call and what to keep with its time.
            budget_s: sampling time.
            aside: time spent so far that does not count.
        """
        elapsed = time.perf_counter() - self.start
        if elapsed >= self.next_reading:
            reading = time_call(reference_call(self.backend), 0.02, self.backend.synchronise,
                                self.clock)
            self.noise.add(elapsed, reading.median_s)
            self.next_reading = elapsed + REFERENCE_EVERY_S
        self.progress(self.done, self.plan.jobs, what)
        self.done += 1
        if key not in self.journal.done:
            call, more = prepare()
            keep(self.journal, key, self.timed(call, budget_s, aside), more)


def measure_engine(
    plan: Plan, machine: Machine, backend: TransformersBackend, journal: Journal,
    progress: Progress,
) -> Measured:
    """Measure kernels and models; what the journal holds is not measured again.

    Args:
        plan: what.
        machine: recorded with the tables.
        backend: runs the kernels.
        journal: of finished measurements.
        progress: called with done, total and what comes next.
    """
    taken = len(journal.done)
    with limited(plan.threads):
        run = _Run(plan, backend, journal, progress, clock_for(plan.threads, plan.device),
                   NoiseReport(notes=machine.notes(), load_average=load_average()))
        keep_freed_memory()
        for number in range(plan.rounds):
            _round(run, number)
    return _collected(run, machine, taken)


def _round(run: _Run, number: int) -> None:
    plan, rng = run.plan, np.random.default_rng(100 + number)
    order = rng.permutation(len(plan.cases))
    slices = np.array_split(order, len(plan.specs))
    for part, which in zip(slices, rng.permutation(len(plan.specs)), strict=True):
        for index in part:
            case = plan.cases[index]
            run.job(f"{number} {case.key}", f"round {number + 1}: {case.operator}",
                    lambda case=case: run.backend.prepare(case.operator, case.shape),  # type: ignore[misc]
                    plan.kernel_s)
        _model(run, number, plan.specs[which])


def _model(run: _Run, number: int, spec: Spec) -> None:
    keys = {point: f"{number} {spec.name} {point}" for point in spec.points}
    model: list[RunningModel] = []

    def prepare(point: Point) -> Any:
        if not model:
            plan = run.plan
            model.append(RunningModel(spec, plan.device, plan.dtype, plan.experts))
            if spec.stream_bytes and plan.device == "cpu":
                model[0].stream_before_linears(run.backend.streaming(spec.stream_bytes), run.clock)
        return model[0].call(point), {"parameters": model[0].parameters}

    def aside() -> float:
        return model[0].aside_s if model else 0.0

    for point, key in keys.items():
        run.job(key, f"round {number + 1}: {spec.name}, {point}",
                lambda point=point: prepare(point), run.plan.step_s, aside)  # type: ignore[misc]


def _collected(run: _Run, machine: Machine, taken: int) -> Measured:
    plan, best, spreads = run.plan, Journal(None, {}), []
    for case in plan.cases:
        rows = list(_rows(run, case.key))
        best.done[case.key] = {**rows[0], "quiet_s": _usual(rows)}
        spreads.append(_spread(rows))
    steps, wide, parameters = {}, {}, {}
    for spec in plan.specs:
        for point in spec.points:
            rows = list(_rows(run, f"{spec.name} {point}"))
            steps[spec.name, str(point)] = _usual(rows)
            wide[spec.name, str(point)] = _spread(rows)
            parameters[spec.name] = rows[0]["more"]["parameters"]
    return Measured(
        as_tables(plan.cases, best, run.backend, machine), steps, wide,
        float(np.median(spreads)), parameters, run.noise, time.perf_counter() - run.start, taken)


def _rows(run: _Run, key: str) -> Iterator[dict[str, Any]]:
    for number in range(run.plan.rounds):
        yield run.journal.done[f"{number} {key}"]


def _usual(rows: Sequence[dict[str, Any]]) -> float:
    """Return the median over rounds of the medians: what others do to the machine hits all alike.

    The fastest samples would favour kernels: hundreds of short ones find a quiet moment where five
    long steps do not.
    """
    return float(np.median([row["median_s"] for row in rows]))


def _spread(rows: Sequence[dict[str, Any]]) -> float:
    times = [row["median_s"] for row in rows]
    return max(times) / min(times) - 1.0
