"""How many threads the libraries use, and which clock tells their time.

One thread is timed by its own processor time: what other processes take away from it does not
count. Several threads are timed by the wall clock.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from costsim.kernels.measure.machine import usable_cores

# Busier than this share of its cores, a machine cannot time several threads: they wait for
# each other while one of them is not running.
BUSY = 0.3


def load_average() -> float:
    """Return the load of the last minute; NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def threads_for_now() -> int:
    """Return all cores, or one where other processes use the machine."""
    cores = usable_cores()
    return 1 if load_average() > BUSY * cores else cores


def clock_for(threads: int, device: str = "cpu") -> Callable[[], float]:
    """Return the clock to time with."""
    return time.thread_time if threads == 1 and device == "cpu" else time.perf_counter


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit NumPy's BLAS and PyTorch to some threads while inside."""
    before = [(set_, get()) for set_, get in _controls()]
    for set_, _ in before:
        set_(threads)
    try:
        yield
    finally:
        for set_, count in before:
            set_(count)


Control = tuple[Callable[[int], object], Callable[[], int]]


def _controls() -> list[Control]:
    import sys

    found = [*_openblas()]
    torch = sys.modules.get("torch")
    if torch is not None:
        found.append((torch.set_num_threads, torch.get_num_threads))
    return found


def _openblas() -> Iterator[Control]:
    """Yield the controls of the OpenBLAS that comes with NumPy's wheels."""
    import numpy

    folder = Path(numpy.__file__).parent.parent / "numpy.libs"
    for path in folder.glob("*openblas*") if folder.is_dir() else ():
        library = ctypes.CDLL(str(path))
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
            setter = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
            getter = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
            if setter is not None and getter is not None:
                yield setter, getter
                break
