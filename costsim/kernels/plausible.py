"""Rows faster than the hardware: mistakes of units, or caches that the bandwidth does not bound."""

from __future__ import annotations

from collections.abc import Iterator
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
    ideal = np.max([ideal for _, ideal in _limits(kernel, hardware)], axis=0)
    return np.asarray(ideal <= TOO_FAST * kernel.latency_s)


# Of a table whose rows are known to hold glitches so many may be left out.
MOST_GLITCHES = 0.02


def without_glitches(table: KernelTable, hardware: Hardware) -> Iterator[KernelTable]:
    """Yield the table's kernels without the rows that beat the hardware, where those are few.

    Args:
        table: of a source with single wrong rows, such as a tuner's.
        hardware: the rows were measured on. Where more than `MOST_GLITCHES` of a kernel's rows beat
            it all are kept, for `check_on` to refuse them.
    """
    for kernel in kernels(table):
        limits = [ideal / kernel.latency_s for _, ideal in _limits(kernel, hardware)]
        wrong = np.max(limits, axis=0) > TOO_FAST
        few = wrong.mean() <= MOST_GLITCHES
        yield kernel.table.select(np.flatnonzero(~wrong)) if few else kernel.table


def _limits(kernel: Kernel, hardware: Hardware) -> tuple[tuple[str, Any], ...]:
    """Return the time at the peak rate, and at the bandwidth where caches cannot hold the work."""
    compute, memory, moved = ideal_times(kernel.operator, hardware, kernel.shape)
    large = moved > CACHE_MULTIPLE * np.asarray(hardware.onchip_memory_bytes, float)
    return ("peak rate", compute), ("bandwidth", np.where(large, memory, 0.0))


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
        for name, ideal in _limits(kernel, hardware):
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
