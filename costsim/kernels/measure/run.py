"""Runs microbenchmarks and returns their kernel tables and how noisy the machine was."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from costsim.errors import unknown_name
from costsim.kernels.measure.cases import Case
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.measure.threads import clock_for, limited, load_average
from costsim.kernels.measure.timing import Timing, time_call
from costsim.kernels.table import KernelTable, make_table

Progress = Callable[[int, int, str], None]
BACKENDS = ("auto", "numpy", "torch", "cuda")
# How often the reference kernel is timed again.
REFERENCE_EVERY_S = 2.0
REFERENCE = Case("gemm", {"m": 64, "n": 512, "k": 512})


class Backend(Protocol):
    """What runs kernels."""

    name: str
    device: str
    dtypes: tuple[str, ...]

    def prepare(self, operator: str, shape: Any) -> tuple[Callable[[], object], dict[str, Any]]:
        """Return a call and shape columns decided by its data."""

    def synchronise(self) -> None:
        """Wait until the device has finished."""


def make_backend(name: str, machine: Machine) -> Backend:
    """Return a backend by name; ``auto`` is torch where it is installed, else NumPy.

    Raises:
        InputError: an unknown name, or one that needs what is not here.
    """
    from importlib.util import find_spec

    from costsim.kernels.measure.numpy_kernels import NumpyBackend
    from costsim.kernels.measure.torch_kernels import TorchBackend

    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    if name == "auto":
        name = "torch" if find_spec("torch") else "numpy"
    if name == "numpy":
        return NumpyBackend(machine.cache_bytes)
    if name == "cuda":
        from costsim.kernels.gpu_harness.backend import GpuBackend

        return GpuBackend("cuda")
    return TorchBackend("cpu", machine.cache_bytes)


@dataclass
class Measurements:
    """What was measured.

    Args:
        tables: one for each operator.
        noise: of the machine meanwhile.
        taken_over: measurements found in the journal.
        seconds: the run took.
        refused: cases that the device or the library has no kernel or no memory for, and why.
    """

    tables: list[KernelTable]
    noise: NoiseReport
    taken_over: int
    seconds: float
    refused: list[dict[str, str]] = field(default_factory=list)


def measure(
    backend: Backend, cases: Sequence[Case], machine: Machine, journal: Journal,
    case_budget_s: float = 0.1, total_budget_s: float = np.inf, progress: Progress | None = None,
    threads: int = 0,
) -> Measurements:
    """Measure cases one after the other.

    Args:
        backend: what runs them.
        cases: in the order they are measured.
        machine: recorded with the tables.
        journal: of finished cases; these are not measured again.
        case_budget_s: sampling time of one case.
        total_budget_s: start no further case after this.
        progress: called with done, total and what comes next.
        threads: that work; 0 for all cores.
    """
    threads = threads or machine.cores
    with limited(threads):
        return _measure(backend, cases, machine, journal, case_budget_s, total_budget_s,
                        progress or _quiet, clock_for(threads, backend.device))


def _quiet(done: int, total: int, what: str) -> None:
    """Say nothing."""


def _measure(
    backend: Backend, cases: Sequence[Case], machine: Machine, journal: Journal,
    case_budget_s: float, total_budget_s: float, progress: Progress, clock: Callable[[], float],
) -> Measurements:
    start = time.perf_counter()
    noise = NoiseReport(notes=machine.notes(), load_average=load_average())
    reference = reference_call(backend)
    taken, next_reading = sum(c.key in journal.done for c in cases), 0.0
    for number, case in enumerate(cases):
        elapsed = time.perf_counter() - start
        if elapsed >= next_reading:
            noise.add(elapsed, time_call(reference, 0.02, backend.synchronise, clock).median_s)
            next_reading = elapsed + REFERENCE_EVERY_S
        progress(number, len(cases), case.operator)
        if case.key not in journal.done and elapsed < total_budget_s:
            _measure_one(backend, case, journal, case_budget_s, clock)
    seconds = time.perf_counter() - start
    noise.add(seconds, time_call(reference, 0.02, backend.synchronise, clock).median_s)
    refused = [{"what": c.key, "why": str(journal.done[c.key]["refused"])} for c in cases
               if "refused" in journal.done.get(c.key, {})]
    return Measurements(as_tables(cases, journal, backend, machine), noise, taken, seconds, refused)


def reference_call(backend: Backend) -> Callable[[], object]:
    """Return the reference kernel, whose time through a run tells how noisy the machine is."""
    dtype = backend.dtypes[0]
    return backend.prepare("gemm", {**REFERENCE.shape, "dtype": dtype, "activation": dtype})[0]


def _measure_one(
    backend: Backend, case: Case, journal: Journal, budget_s: float, clock: Callable[[], float]
) -> None:
    try:
        call, more = backend.prepare(case.operator, case.shape)
        own = getattr(backend, "timed", None)
        timing = own(call, budget_s) if own else time_call(
            call, budget_s, backend.synchronise, clock)
    except getattr(backend, "refusals", ()) as error:
        journal.add(case.key, refused=str(error).split("\n")[0][:200])
        return
    keep(journal, case.key, timing, more)


def keep(journal: Journal, key: str, timing: Timing, more: Mapping[str, Any]) -> None:
    """Add a timing to a journal, with shape columns that only the data decided."""
    journal.add(key, median_s=timing.median_s, quiet_s=timing.quiet_s, spread=timing.spread,
                samples=timing.samples, more=dict(more))


def as_tables(
    cases: Sequence[Case], journal: Journal, backend: Backend, machine: Machine
) -> list[KernelTable]:
    """Return the tables of the cases that are done."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if "quiet_s" in journal.done.get(case.key, {}):
            groups.setdefault(case.operator, []).append(case)
    versions = machine.versions
    version = versions.get(backend.name, "")
    if backend.name == "numpy":
        version = f"{version} {versions.get('blas', '')}".strip()
    device = getattr(backend, "title", f"{machine.processor} ({machine.cores} cores)")
    about = {"device": device, "software": backend.name,
             "version": version, "source": "costsim calibrate",
             "date": datetime.date.today().isoformat()}
    return [_table(operator, group, journal, about) for operator, group in sorted(groups.items())]


def _table(
    operator: str, cases: Sequence[Case], journal: Journal, about: dict[str, str]
) -> KernelTable:
    rows = [journal.done[c.key] for c in cases]
    shapes = [{**c.shape, **row["more"]} for c, row in zip(cases, rows, strict=True)]
    shape = {name: np.array([s[name] for s in shapes]) for name in shapes[0]}
    return make_table(operator, shape, [r["quiet_s"] for r in rows],
                      [r["spread"] for r in rows], **about)
