"""What machine this is: processor, cores, threads, caches, memory and library versions."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """The machine measured.

    Args:
        processor: its name.
        cores: logical processors this process may use.
        threads_per_core: 2 with simultaneous multithreading, 1 without, 0 where unknown.
        numa_nodes: memory domains; 0 where unknown.
        cache_bytes: last-level cache.
        memory_bytes: main memory, or what the container may use of it.
        versions: of Python and the libraries.
        thread_settings: environment variables that limit threads.
        threads: that the measurements use; 0 for all cores.
    """

    processor: str
    cores: int
    threads_per_core: int
    numa_nodes: int
    cache_bytes: float
    memory_bytes: float
    versions: dict[str, str]
    thread_settings: dict[str, str]
    threads: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def notes(self) -> list[str]:
        """Return what about this machine makes timings uncertain."""
        found = []
        if self.threads == 1 and self.cores > 1:
            found.append(f"one thread of {self.cores} cores, by its processor time")
        if self.threads_per_core > 1:
            found.append(f"SMT: {self.threads_per_core} threads share a core")
        if self.numa_nodes > 1:
            found.append(f"NUMA: {self.numa_nodes} nodes; pages far from their core are slower")
        if self.thread_settings:
            found.append("threads limited by " + ", ".join(
                f"{k}={v}" for k, v in self.thread_settings.items()))
        return found


def this_machine() -> Machine:
    """Return the machine this process runs on (Linux in full; elsewhere what is known)."""
    return Machine(
        processor=_processor(), cores=usable_cores(), threads_per_core=_threads_per_core(),
        numa_nodes=len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))),
        cache_bytes=_last_cache(), memory_bytes=_memory(), versions=library_versions(),
        thread_settings={k: os.environ[k] for k in (
            "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if k in os.environ})


def usable_cores() -> int:
    """Return the logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _processor() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _threads_per_core() -> int:
    listed = _read(_CPU / "cpu0/topology/thread_siblings_list")
    if not listed:
        return 0
    count = 0
    for part in listed.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Where the system does not say: a cautious guess, so that measurements still leave the cache.
_USUAL_CACHE = 32 * 2**20


def _last_cache() -> float:
    sizes = [_read(p) for p in (_CPU / "cpu0/cache").glob("index*/size")]
    found = [int(s[:-1]) * _UNITS[s[-1]] for s in sizes if s and s[-1] in _UNITS]
    return float(max(found, default=_USUAL_CACHE))


def _memory() -> float:
    limits = [_read(Path(p)) for p in ("/sys/fs/cgroup/memory.max",
                                       "/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    found = [float(x) for x in limits if x.isdigit()]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return min(found, default=8e9)


def library_versions() -> dict[str, str]:
    """Return versions of Python and of the libraries that run the kernels."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["blas"] = _blas()
    return found


def _blas() -> str:
    import numpy as np

    try:
        about = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{about['name']} {about['version']}"
    except (KeyError, TypeError):
        return "unknown"
