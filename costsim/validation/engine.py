"""Real models timed here against the engine model, calibrated by kernels timed on their own.

Nothing is fitted to the models' times but the host's overhead per layer and per step, and that to
small models that are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from costsim import library
from costsim.engine.deployment import Deployment, deploy
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.settings import EngineSettings
from costsim.engine.step import StepTime, step_time
from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.fit import fit
from costsim.kernels.local_profile import local_hardware
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine, this_machine
from costsim.kernels.operators import FEATURES
from costsim.kernels.surface_fit import FEWEST
from costsim.validation.engine_models import Point, Spec, specs
from costsim.validation.engine_result import EngineValidation, Ratio, Step

Progress = Callable[[int, int, str], None]
PRESET = "transformers"


def validate_engine(
    quick: bool = True, device: str = "cpu", dtype: str = "", threads: int = 1,
    experts: str = "grouped_mm", progress: Progress | None = None, resume: bool = True,
    only: Sequence[str] = (),
) -> EngineValidation:
    """Time kernels and models here, predict the models from the kernels, and compare.

    Args:
        quick: a few minutes; else larger models, more steps and a finer kernel grid.
        device: ``cpu`` or ``cuda``.
        dtype: ``fp32`` or ``bf16``; by default that of the device.
        threads: that work. One is timed by its own processor time.
        experts: implementation of the experts in transformers.
        progress: called with done, total and what is measured.
        resume: go on with an interrupted run.
        only: names of models; all if empty.

    Raises:
        InputError: an unknown name, or what is needed is not installed.
    """
    plan, machine, backend = _planned(quick, device, dtype, threads, experts, only)
    from costsim.validation.engine_run import measure_engine

    about = {**machine.as_dict(), "device": device, "dtype": plan.dtype, "experts": experts,
             "rounds": plan.rounds, "quick": quick,
             "models": [[s.name, s.config] for s in plan.specs]}
    file = library.user_home() / "journals" / (
        f"engine-{device}-{plan.dtype}-{'quick' if quick else 'full'}.jsonl")
    if not resume:
        file.unlink(missing_ok=True)
    journal = Journal.open(file, about)
    found = measure_engine(plan, machine, backend, journal, progress or (lambda *_: None))
    compared = compare(found, plan.specs, machine, device, plan.dtype)
    journal.remove()
    return replace(compared, about={
        "processor": machine.processor, "cores": machine.cores, "threads": plan.threads,
        "device": device, "dtype": plan.dtype, "experts": experts, "versions": machine.versions,
        "rounds": plan.rounds, "taken_over": found.taken_over})


def _planned(
    quick: bool, device: str, dtype: str, threads: int, experts: str, only: Sequence[str]
) -> tuple[Any, Machine, Any]:
    from costsim.kernels.measure.torch_kernels import torch_module

    torch_module()
    from costsim.kernels.measure.transformers_kernels import TransformersBackend
    from costsim.validation.engine_run import (
        FULL,
        FULL_BUDGET,
        QUICK,
        QUICK_BUDGET,
        Plan,
        engine_cases,
    )

    _check(device, dtype)
    dtype = dtype or ("fp32" if device == "cpu" else "bf16")
    machine = replace(this_machine(), threads=threads)
    chosen = _chosen(specs(quick), only)
    backend = TransformersBackend(device, machine.cache_bytes, dtype, experts)
    kernel_s, step_s, rounds = QUICK_BUDGET if quick else FULL_BUDGET
    cases = engine_cases(QUICK if quick else FULL, dtype)
    return (Plan(chosen, cases, device, dtype, experts, threads, kernel_s, step_s, rounds),
            machine, backend)


def _check(device: str, dtype: str) -> None:
    for name, value, allowed in (("device", device, ("cpu", "cuda")),
                                 ("dtype", dtype, ("", "fp32", "bf16"))):
        if value not in allowed:
            raise InputError(f"{name} '{value}': {' or '.join(a for a in allowed if a)}")
    major = int(version("transformers").split(".")[0])
    if major < 5:
        raise InputError(f"transformers {version('transformers')}: version 5 or later is needed")


def _chosen(found: Sequence[Spec], only: Sequence[str]) -> list[Spec]:
    names = [s.name for s in found if not s.host]
    for name in only:
        if name not in names:
            raise InputError(f"unknown model '{name}'; known: {', '.join(names)}")
    wanted = {*only, *(s.pair for s in found if s.name in only)} if only else set(names)
    return [s for s in found if s.host or s.name in wanted]


def compare(
    found: Any, chosen: Sequence[Spec], machine: Machine, device: str, dtype: str
) -> EngineValidation:
    """Return the comparison of measured steps with those predicted from measured kernels.

    Args:
        found: of `costsim.validation.engine_run.measure_engine`.
        chosen: its models.
        machine, device, dtype: it was measured on and in.
    """
    hardware = local_hardware(found.tables, machine, "here", device)
    usable = [t for t in found.tables if t.operator in FEATURES and len(t) >= FEWEST]
    calibration = fit(usable, hardware, name="here", engine="")
    bare = replace(load_settings(PRESET), host_layer_curve=(), layer_gap_s=0.0, host_step_s=0.0)
    small = [s for s in chosen if s.host]
    curve, step_s = host_times(
        {s.name: _predicted(s, s.points[0], hardware, calibration, dtype, bare) for s in small},
        found.steps, small)
    settings = replace(bare, host_layer_curve=curve, host_step_s=step_s)
    steps = [_step(s, p, found, _predicted(s, p, hardware, calibration, dtype, settings))
             for s in chosen if not s.host for p in s.points]
    return EngineValidation(
        steps, ratios(steps, chosen), curve, step_s, _kernels(calibration),
        found.kernel_spread, found.parameters, {}, found.noise, found.seconds, calibration)


LINEARS = 7  # in a layer of the host's models: q, k, v, o, gate, up, down


def host_times(
    kernels: Mapping[str, StepTime], measured: Mapping[tuple[str, str], float],
    small: Sequence[Spec],
) -> tuple[tuple[tuple[float, float], ...], float]:
    """Return host time of a layer over the bytes moved in it, and host time of a step.

    It is what small models take beyond their kernels, between two depths.

    Args:
        kernels: prediction of each model's kernels.
        measured: time of each model's step.
        small: the models: two depths for each number of bytes streamed.
    """
    curve, steps = [], []
    for stream in sorted({s.stream_bytes for s in small}):
        few, many = sorted((s for s in small if s.stream_bytes == stream), key=_layers)
        rest = [measured[s.name, str(s.points[0])] - float(kernels[s.name].seconds)
                for s in (few, many)]
        layers = [_layers(s) for s in (few, many)]
        each = max((rest[1] - rest[0]) / (layers[1] - layers[0]), 0.0)
        moved = float(kernels[many.name].memory_bytes) / layers[1] + LINEARS * stream
        curve.append((moved, each))
        steps.append(rest[0] - each * layers[0])
    return tuple(curve), max(float(np.median(steps)), 0.0)


def _layers(spec: Spec) -> int:
    return sum(kind.count for kind in spec.model.layers)


def _predicted(
    spec: Spec, point: Point, hardware: Hardware, calibration: Calibration, dtype: str,
    settings: EngineSettings,
) -> StepTime:
    precision = Precision(*[dtype] * 7)
    deployment: Deployment = deploy(spec.model, hardware, None, precision, settings, calibration)
    if point.phase == "prefill":
        return step_time(deployment, prefill_requests=point.requests, prefill_tokens=point.tokens)
    return step_time(deployment, decode_requests=point.requests, decode_context=point.tokens + 1)


def _step(spec: Spec, point: Point, found: Any, predicted: StepTime) -> Step:
    key = (spec.name, str(point))
    return Step(
        spec.name, point.phase, point.requests, point.tokens, spec.moe, found.steps[key],
        float(predicted.seconds), float(predicted.log_error), found.spreads[key],
        {name: float(seconds) for name, seconds in predicted.by_operator.items() if seconds > 0})


def ratios(steps: Iterable[Step], chosen: Iterable[Spec]) -> list[Ratio]:
    """Return the cost of mixtures of experts over their dense pairs, step by step."""
    at = {(s.model, s.phase, s.requests, s.tokens): s for s in steps}
    found = []
    for spec in chosen:
        for point in spec.points:
            key = (point.phase, point.requests, point.tokens)
            moe, dense = at.get((spec.name, *key)), at.get((spec.pair, *key))
            if moe and dense:
                found.append(Ratio(moe.model, dense.model, str(point),
                                   moe.measured_s / dense.measured_s,
                                   moe.predicted_s / dense.predicted_s))
    return found


def _kernels(calibration: Calibration) -> list[dict[str, Any]]:
    rows = []
    for (operator, variant, _), surface in sorted(calibration.surfaces.items()):
        held = surface.about.get("held_out", {})
        rows.append({"operator": operator, "variant": variant, "rows": surface.rows,
                     "median": held.get("median"), "p90": held.get("p90")})
    return rows
