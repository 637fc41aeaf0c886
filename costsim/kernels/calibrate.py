"""``costsim.calibrate``: measure kernels here or read measurements, fit them, save a profile."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim import library
from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.fit import fit
from costsim.kernels.local_profile import local_hardware, save_local
from costsim.kernels.measure.cases import FULL, QUICK, Case, Grid, all_cases
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import this_machine
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.measure.run import Backend, Measurements, make_backend, measure
from costsim.kernels.measure.threads import threads_for_now
from costsim.kernels.operators import FEATURES
from costsim.kernels.surface_fit import FEWEST, log_errors
from costsim.kernels.surface_fit import kernels as kernels_of
from costsim.kernels.table import KernelTable, write_csv

Progress = Callable[[int, int, str], None]
# Sampling time of one case, and the time after which no further case starts.
QUICK_BUDGET_S, FULL_BUDGET_S = (0.08, 38.0), (0.4, 1800.0)
# On a GPU, with launches, sparsity and whole decode steps still to come: under 8 minutes in all.
GPU_QUICK_BUDGET_S, GPU_BUDGET_S = (0.02, 25.0), (0.05, 300.0)


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found.

    Args:
        calibration: the fit.
        hardware: the profile it belongs to; efficiencies are relative to its rates.
        tables: the measurements.
        noise: of the machine while measuring; None where the rows were read.
        machine: processor and library versions, where measured here.
        extras: further measurements that no operator of the engine uses, as plain rows.
        files: written.
        seconds: measuring took.
        missing: cases that the time budget left out.
        refused: cases that the device has no kernel or no memory for, and why.
    """

    calibration: Calibration
    hardware: Hardware
    tables: list[KernelTable]
    noise: NoiseReport | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    extras: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    missing: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a kernel: rows, held-out median, p90 and bias, efficiencies."""
        return [_row(key, surface) for key, surface in sorted(self.calibration.surfaces.items())]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        rates = {k: float(v) for k, v in self.hardware.peak_flop_per_s.items()}
        return {
            "name": self.calibration.name, "hardware": self.hardware.name,
            "peak_flop_per_s": rates, "seconds": self.seconds, "missing_cases": self.missing,
            "memory_bandwidth_bytes_per_s": float(self.hardware.memory_bandwidth_bytes_per_s),
            "fit": self.rows(), "noise": self.noise.as_dict() if self.noise else None,
            "machine": self.machine, "extras": self.extras, "refused": self.refused,
            "files": [str(f) for f in self.files]}


def _row(key: tuple[str, str, str], surface: Any) -> dict[str, Any]:
    held, e = surface.about.get("held_out", {}), surface.efficiency
    return {
        "operator": key[0], "variant": key[1], "engine": key[2], "rows": surface.rows,
        "median": held.get("median"), "p90": held.get("p90"), "bias": held.get("bias"),
        "coverage": surface.about.get("coverage"), "compute": e.compute, "memory": e.memory,
        "launch_s": e.launch_s}


def calibrate(
    device: str = "local", backend: str = "auto", quick: bool = True,
    source: str | Path | None = None, output: str | Path | None = None, name: str = "local",
    progress: Progress | None = None, *, hardware: str | Hardware | None = None,
    model: Any = None, tp: int = 1, resume: bool = True, extras: bool = True,
    grid: Grid | None = None, budget_s: float | None = None, threads: int | None = None,
) -> CalibrationResult:
    """Measure the kernels of this machine (or read measurements), fit, and save the result.

    The profile and its calibration go to ``$COSTSIM_HOME/hardware_profiles`` (``~/.costsim``),
    where every other command finds them by ``name``.

    Args:
        device: ``"local"``, this machine.
        backend: ``numpy``, ``torch`` (CPU), ``cuda``, or ``auto``.
        quick: under a minute; else the full grid (up to half an hour).
        source: a CSV file of the project's format, or a folder of such files, of Vidur's or of
            LLMServingSim's; None to measure.
        output: folder for a copy of the table, the profile and the calibration as well.
        name: of the profile.
        progress: called with done, total and what is measured.
        hardware: profile that rows read from a source were measured on.
        model, tp: that LLMServingSim profiled.
        resume: take over the finished measurements of an interrupted run.
        extras: also measure block-sparse GEMM, expert dispatch and all-reduce between processes.
        grid, budget_s: replace the quick or full grid and the time budget.
        threads: that work; by default all cores, or one where other processes use the machine:
            one thread can be timed by its own processor time, several cannot.

    Raises:
        InputError: an unknown device or backend, or a source that cannot be read.
    """
    if device != "local":
        raise InputError(f"device '{device}': only 'local' can be measured; give measurements of "
                         "other accelerators with --from and --hardware")
    _check_name(name)
    if source is not None:
        return _from_source(Path(source), hardware, name, output, model, tp)
    machine = replace(this_machine(), threads=threads or threads_for_now())
    runner = make_backend(backend, machine)
    cases, per_case, total = _planned(runner, quick, grid)
    about = {"machine": machine.as_dict(), "backend": runner.name, "device": runner.device}
    journal = Journal.open(_journal(name, runner, quick) if resume else None, about)
    found = measure(runner, cases, machine, journal, per_case,
                    total if budget_s is None else budget_s, progress, machine.threads)
    missing = sum(case.key not in journal.done for case in cases)
    rows: list[dict[str, Any]] = []
    if extras:
        from costsim.kernels.measure.extras import extra_parts, measure_extras

        rows = measure_extras(extra_parts(runner, machine, quick, found.refused), journal, progress)
    result = _fitted(found, runner, name, machine, rows, missing)
    result = _saved(result, output)
    journal.remove()
    return result


def _planned(
    backend: Backend, quick: bool, grid: Grid | None
) -> tuple[list[Case], float, float]:
    """Return the cases, the sampling time of each, and the time after which no more starts."""
    if backend.device == "cuda":
        from costsim.kernels.gpu_harness import grid as gpu

        cases = gpu.cases(grid or (gpu.QUICK if quick else gpu.FULL), backend.dtypes)
        return cases, *(GPU_QUICK_BUDGET_S if quick else GPU_BUDGET_S)
    cases = all_cases(grid or (QUICK if quick else FULL), backend.dtypes)
    return cases, *(QUICK_BUDGET_S if quick else FULL_BUDGET_S)


def _check_name(name: str) -> None:
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise InputError(f"name '{name}': only letters, digits, '-', '_' and '.'")
    from costsim.hardware.loader import list_hardware

    own = library.user_home() / "hardware_profiles" / f"{name}.toml"
    if name in list_hardware() and not own.is_file():
        raise InputError(f"name '{name}': a profile of that name ships with costsim; take another")


def _journal(name: str, backend: Backend, quick: bool) -> Path:
    kind = f"{backend.name}-{backend.device}-{'quick' if quick else 'full'}"
    return library.user_home() / "journals" / f"{name}-{kind}.jsonl"


def _fitted(
    found: Measurements, backend: Backend, name: str, machine: Any, extras: list[dict[str, Any]],
    missing: int,
) -> CalibrationResult:
    hardware = local_hardware(found.tables, machine, name, backend.device)
    usable = [t for t in found.tables if t.operator in FEATURES and len(t) >= FEWEST]
    about = {"made": datetime.date.today().isoformat(), "machine": machine.as_dict(),
             "noise": found.noise.sentence(), "command": "costsim calibrate"}
    calibration = fit(usable, hardware, name=name, engine="", about=about)
    return CalibrationResult(
        calibration, hardware, found.tables, found.noise, machine.as_dict(), extras,
        seconds=found.seconds, missing=missing, refused=found.refused)


def _saved(result: CalibrationResult, output: str | Path | None) -> CalibrationResult:
    folders = [library.user_home() / "hardware_profiles"]
    files = [f for folder in folders
             for f in save_local(result.hardware, result.calibration, folder)]
    if output is not None:
        folder = Path(output)
        files += [write_csv(folder / "kernels.csv", result.tables),
                  *_written_extras(result.extras, folder / "extras.csv"),
                  *save_local(result.hardware, result.calibration, folder)]
    return replace(result, files=files)


def _written_extras(rows: list[dict[str, Any]], path: Path) -> list[Path]:
    """Write the extra measurements as a CSV; columns that a row does not have stay blank."""
    if not rows:
        return []
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return [write_atomically(path, text.getvalue())]


def _from_source(
    source: Path, hardware: str | Hardware | None, name: str, output: str | Path | None,
    model: Any, tp: int,
) -> CalibrationResult:
    from costsim.hardware.loader import load_hardware
    from costsim.kernels.sources import read_source

    if hardware is None:
        raise InputError(f"{source}: say which accelerator the rows were measured on "
                         "(--hardware), such as h100_sxm")
    base = load_hardware(hardware) if isinstance(hardware, str) else hardware
    tables = read_source(source, base, model, tp)
    about = {"made": datetime.date.today().isoformat(), "source": source.name,
             **_others(base, name)}
    calibration = fit(tables, base, name=name, engine="", about=about)
    if not calibration.surfaces:
        raise InputError(f"{source}: no operator has {FEWEST} rows or more; nothing to fit")
    result = CalibrationResult(calibration, replace(base, name=name, calibration=name), tables)
    folder = library.user_home() / "hardware_profiles"
    files = []
    for target in [folder] + ([Path(output)] if output else []):
        files += _save_derived(result, base.name, target)
    return replace(result, files=files)


def _others(base: Hardware, name: str) -> dict[str, Any]:
    """Return where kernels that the rows do not hold come from: what the profile had before."""
    if base.calibration and base.calibration != name:
        return {"others_of": base.calibration}
    return {"others_from": base.borrowed_calibration} if base.borrowed_calibration else {}


def _save_derived(result: CalibrationResult, base: str, folder: Path) -> list[Path]:
    """Write a profile that is the base's but for its calibration."""
    from costsim.kernels.store import write_calibration

    name = result.calibration.name
    text = f'extends = "{base}"\ncalibration = "{name}"\n'
    return [write_atomically(folder / f"{name}.toml", text),
            write_calibration(result.calibration, folder / "calibrations" / f"{name}.json")]


def scatter(result: CalibrationResult) -> dict[tuple[str, str], dict[str, Any]]:
    """Return measured and predicted latencies by operator and data types, for the figures."""
    found = {}
    for table in result.tables:
        for kernel in kernels_of(table, "", result.hardware.kind == "cpu"):
            surface = result.calibration.surfaces.get((kernel.operator, kernel.variant, ""))
            if surface is not None:
                errors = log_errors(surface, kernel, result.hardware)
                found[kernel.operator, kernel.variant] = {
                    "measured_s": kernel.latency_s, "shape": kernel.shape,
                    "predicted_s": kernel.latency_s * np.exp(-errors), "log_errors": errors}
    return found
