"""The hardware profile of this machine, from its own measurements."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.hardware.accelerator import Hardware, Link
from costsim.hardware.loader import save_hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.measure.machine import Machine
from costsim.kernels.operators import operator_work
from costsim.kernels.store import write_calibration
from costsim.kernels.table import KernelTable

# Rent of a processor core where nobody says what this machine costs.
USD_PER_CORE_HOUR = 0.05
_PRICE_SOURCE = "unverified: typical on-demand price of a cloud vCPU, from memory"
# Power of a server's core at full load and idle, where there is no meter.
_WATTS_PER_CORE, _IDLE_WATTS_PER_CORE = 8.0, 3.0


def local_hardware(
    tables: Sequence[KernelTable], machine: Machine, name: str, device: str = "cpu"
) -> Hardware:
    """Return this machine as hardware: its peak rates and its bandwidth are the best measured.

    Raises:
        InputError: the tables hold no GEMM or no copy.
    """
    gemm = next((t for t in tables if t.operator == "gemm"), None)
    copy = next((t for t in tables if t.operator == "elementwise"), None)
    if copy is not None:
        copy = copy.select(copy.shape["kind"] == "")
    if gemm is None or not copy:
        raise InputError("calibrate: no GEMM or no memory copy was measured; give it more time")
    bandwidth = _bandwidth(copy, machine)
    memory, title = machine.memory_bytes, machine.processor
    units = float(machine.threads or machine.cores)
    if device == "cuda":
        memory, units, title = _cuda()
    alone = Link(1.0, bandwidth, 1e-6)
    return Hardware(
        name=name, title=f"{title} (measured here)", vendor="local",
        kind="cpu" if device == "cpu" else "gpu", peak_flop_per_s=_peaks(gemm),
        memory_bytes=memory, memory_bandwidth_bytes_per_s=bandwidth,
        onchip_memory_bytes=machine.cache_bytes, compute_units=units, scale_up=alone,
        scale_out=Link(1.0, 1.25e9, 3e-5), host_bandwidth_bytes_per_s=bandwidth,
        host_memory_bytes=machine.memory_bytes, tdp_w=_WATTS_PER_CORE * units,
        idle_w=_IDLE_WATTS_PER_CORE * units, calibration=name, provenance="measured")


def _peaks(gemm: KernelTable) -> dict[str, Any]:
    rate = 2.0 * gemm.shape["m"] * gemm.shape["n"] * gemm.shape["k"] / gemm.latency_s
    found = {str(t): float(rate[gemm.shape["dtype"] == t].max())
             for t in np.unique(gemm.shape["dtype"])}
    return {"bf16" if t == "fp16" else t: r for t, r in found.items()}


def _bandwidth(copy: KernelTable, machine: Machine) -> float:
    """Return bytes read and written a second, by copies that no cache can hold."""
    moved = np.asarray(operator_work("elementwise", {"bytes": copy.shape["bytes"]}).bytes)
    rate = moved / copy.latency_s
    beyond = moved > 2.0 * machine.cache_bytes
    return float(rate[beyond].max() if beyond.any() else rate[np.argmax(moved)])


def _cuda() -> tuple[float, float, str]:
    import torch

    about = torch.cuda.get_device_properties(0)
    return float(about.total_memory), float(about.multi_processor_count), str(about.name)


def save_local(h: Hardware, calibration: Calibration, folder: Path) -> list[Path]:
    """Write a profile and its calibration into a folder of hardware profiles."""
    today = datetime.date.today().isoformat()
    path = folder / f"{h.name}.toml"
    save_hardware(h, path, "costsim calibrate on this machine", today)
    if h.kind == "cpu":
        price = USD_PER_CORE_HOUR * float(h.compute_units)
        text = path.read_text(encoding="utf-8") + (
            f'\n[[prices]]\nkind = "on_demand"\nprice = "${price:g}/h"\ndate = "{today[:7]}"\n'
            f'source = "{_PRICE_SOURCE}"\nprovenance = "unverified"\n')
        write_atomically(path, text)
    fitted = folder / "calibrations" / f"{h.name}.json"
    return [path, write_calibration(calibration, fitted)]
