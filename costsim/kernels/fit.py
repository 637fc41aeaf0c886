"""Fits calibrations to kernel tables: a surface a kernel, with the error that held-out rows show.

The error is scaled so that ±1.645 of it holds 90 % of the rows that a fit did not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration, Key, Surface
from costsim.kernels.efficiency import GENERIC
from costsim.kernels.holdout import block_errors
from costsim.kernels.surface_fit import (
    FEWEST,
    Kernel,
    coverage,
    enough_for,
    error_figures,
    fit_surface,
    kernels,
    random_errors,
)
from costsim.kernels.table import KernelTable

# Share of the held-out blocks' rows that the interval has to hold.
BLOCK_SHARE = 0.87


def fit_with_error(kernel: Kernel, hardware: Hardware, blocks: bool = False) -> Surface:
    """Return the surface of all rows, with the error that rows show which a fit did not see.

    Half of the rows held out at random set the error, the other half tell how many of them it
    covers; rows of blocks set it together, and tell by halves what half of them would cover.

    Args:
        kernel: measured rows.
        hardware: they were measured on.
        blocks: hold out whole ranges too (see `costsim.kernels.holdout`): they are missed by more
            than random rows, and the error is what `BLOCK_SHARE` of them need if that is more.
    """
    surface = fit_surface(kernel, hardware)
    if len(kernel.latency_s) < 2 * FEWEST:
        generic = GENERIC[kernel.operator].log_error
        return replace(surface, efficiency=replace(surface.efficiency, log_error=generic))
    errors = random_errors(kernel, hardware)
    half = max(len(errors) // 2, 1)
    setting, counted = errors[:half], errors[half:]
    spread = enough_for(setting)
    about: dict[str, Any] = {
        "held_out": error_figures(errors), "version": kernel.table.version}
    if blocks:
        ours, theirs, figures = block_errors(kernel, hardware, spread)
        about["blocks"] = figures
        if len(ours):
            # Each half is counted with the error that the other one sets: blocks can be few rows.
            held = [coverage(told, max(spread, enough_for(set_by, BLOCK_SHARE)))
                    for set_by, told in ((ours, theirs), (theirs, ours)) if len(set_by)]
            about["coverage_blocks"] = round(float(np.mean(held)), 3)
            spread = max(spread, enough_for(np.concatenate([ours, theirs]), BLOCK_SHARE))
    if len(counted):
        about["coverage"] = coverage(counted, spread)
    return replace(surface, efficiency=replace(surface.efficiency, log_error=spread), about=about)


def fit(
    tables: Iterable[KernelTable], hardware: Hardware, name: str = "", engine: str | None = None,
    about: Mapping[str, Any] | None = None, blocks: bool = False,
) -> Calibration:
    """Return the calibration of an accelerator from kernel tables.

    Args:
        tables: measured rows; of one kernel measured more than once the last table counts.
        hardware: the accelerator they were measured on; efficiencies are relative to its rates.
        name: of the calibration; the hardware's if empty.
        engine: to file all kernels under, such as ``""`` for one's own measurements; by default
            the software that each table names.
        about: provenance to keep with it.
        blocks: hold out blocks too, not only random rows (slower).
    """
    surfaces: dict[Key, Surface] = {}
    one_row = hardware.kind == "cpu"
    for kernel in _joined(k for t in tables for k in kernels(t, engine, one_row)):
        if len(kernel.latency_s) >= FEWEST:
            key = (kernel.operator, kernel.variant, kernel.engine)
            surfaces[key] = fit_with_error(kernel, hardware, blocks)
    name = name or hardware.name
    return Calibration(name, f"calibrated: {name}", surfaces,
                       about={**reference_rates(hardware), **(about or {})})


def overlaid(base: Calibration, own: Calibration) -> Calibration:
    """Return one's own calibration, with what it lacks taken from another of the same device."""
    return replace(own, surfaces={**base.surfaces, **own.surfaces},
                   about={**own.about, "rest_from": base.name})


def _joined(found: Iterable[Kernel]) -> Sequence[Kernel]:
    """Return the kernels, the last of each key."""
    last: dict[Key, Kernel] = {}
    for kernel in found:
        last[kernel.operator, kernel.variant, kernel.engine] = kernel
    return list(last.values())


def reference_rates(hardware: Hardware) -> dict[str, Any]:
    """Return the rates that efficiencies were fitted against, to be kept with them."""
    return {"hardware": hardware.name, "rates": {
        "peak_flop_per_s": {k: float(v) for k, v in hardware.peak_flop_per_s.items()},
        "memory_bandwidth_bytes_per_s": float(hardware.memory_bandwidth_bytes_per_s),
        "scale_up_bytes_per_s": float(hardware.scale_up.bandwidth_bytes_per_s),
        "compute_units": float(hardware.compute_units)}}
