"""Rows faster than the hardware: mistakes of units, or caches that the bandwidth does not bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import ideal_times
from costsim.kernels.surface_fit import Kernel, kernels
from costsim.kernels.table import KernelTable, check_table, title

# Measured rows may pass the data sheet's rate a little: clocks above the rated boost.
TOO_FAST = 1.1
# A part of the bytes may come from the last-level cache: only rows with work well beyond it are
# held against the memory bandwidth.
CACHE_MULTIPLE = 4.0
# One such row in a thousand is a glitch of the clock, not a mistake of units.
FEW_TOO_FAST = 0.001


def possible(kernel: Kernel, hardware: Hardware) -> Any:
    """Return which rows do not beat the hardware's peak rate or memory bandwidth.

    Only for operators whose work is certain: how many experts a table touched is an estimate, and
    collectives may reduce inside the switch.
    """
    if kernel.operator not in ("gemm", "attention_prefill", "attention_decode"):
        return np.ones(len(kernel.latency_s), bool)
    compute, memory, moved = ideal_times(kernel.operator, hardware, kernel.shape)
    large = moved > CACHE_MULTIPLE * np.asarray(hardware.onchip_memory_bytes, float)
    ideal = np.maximum(compute, np.where(large, memory, 0.0))
    return np.asarray(ideal <= TOO_FAST * kernel.latency_s)


def check_on(table: KernelTable, hardware: Hardware) -> KernelTable:
    """Return the table if its rows can be true on the accelerator they were measured on.

    The rates tell milliseconds from microseconds.

    Args:
        table: to check.
        hardware: the accelerator.

    Raises:
        InputError: what `check_table` refuses, or rows faster than 1.1 times the peak rate or the
            memory bandwidth (a mistake of units).
    """
    where = title(check_table(table))
    for kernel in kernels(table):
        compute, memory, moved = ideal_times(kernel.operator, hardware, kernel.shape)
        large = moved > CACHE_MULTIPLE * np.asarray(hardware.onchip_memory_bytes, float)
        limits = (("peak rate", compute), ("bandwidth", np.where(large, memory, 0.0)))
        for name, ideal in limits:
            over = ideal / kernel.latency_s
            if (over > TOO_FAST).mean() > FEW_TOO_FAST:
                row = int(np.argmax(over))
                shape = ", ".join(f"{n}={c[row]:g}" for n, c in kernel.table.shape.items()
                                  if c.dtype.kind == "f" and np.isfinite(c[row]))
                raise InputError(
                    f"{where}: {shape} in {kernel.latency_s[row]:.3g} s would be {over[row]:.3g} "
                    f"times the {name} of {hardware.name} ({int((over > TOO_FAST).sum())} such "
                    "rows); is the latency in seconds?")
    return table
