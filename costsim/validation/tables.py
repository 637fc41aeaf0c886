"""Kernel tables from wherever they come, ready to be compared with a calibration."""

from __future__ import annotations

from pathlib import Path

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.build_silicon import SYSTEMS
from costsim.kernels.readers.modules import read_modules
from costsim.kernels.readers.silicon import read_silicon
from costsim.kernels.readers.vidur import read_vidur_all_reduce, read_vidur_mlp
from costsim.kernels.store import load_calibration
from costsim.kernels.table import KernelTable, read_csv
from costsim.validation.kernels import KernelErrors, validate_kernels
from costsim.validation.modules import validate_modules


def read_tables(path: Path, device: str = "") -> list[KernelTable]:
    """Return the kernel tables of a file: our own CSV, or Vidur's mlp.csv and all_reduce.csv.

    Raises:
        InputError: the file is missing or is none of these.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open(encoding="utf-8-sig") as file:
        head = file.readline()
    if "time_stats.mlp" in head:
        return read_vidur_mlp(path, device)
    if "time_stats.all_reduce" in head:
        return read_vidur_all_reduce(path, device)
    return read_csv(path)


def silicon_tables(hardware: Hardware) -> list[KernelTable]:
    """Return the published measurements of an accelerator (extra ``silicon``).

    Raises:
        InputError: it has none.
    """
    return read_silicon(system_of(hardware))


def system_of(hardware: Hardware) -> str:
    """Return which system of the published tables an accelerator is.

    Raises:
        InputError: none.
    """
    for system, (calibration, profile) in SYSTEMS.items():
        if hardware.name == profile or hardware.calibration == calibration:
            return system
    known = ", ".join(profile for _, profile in SYSTEMS.values())
    raise InputError(f"{hardware.name}: no published kernel tables; give --table FILE "
                     f"(measured: {known})")


def kernel_errors(hardware: Hardware, path: Path | None = None) -> list[KernelErrors]:
    """Return the errors of every kernel of a table on an accelerator's calibration.

    Args:
        hardware: with its calibration.
        path: a table; None for the published ones.
    """
    tables = silicon_tables(hardware) if path is None else read_tables(path, hardware.name)
    calibration = load_calibration(hardware)
    found = validate_kernels(tables, calibration, hardware)
    if path is None:
        modules = read_modules(system_of(hardware))
        found += validate_modules(modules, calibration, hardware)
    return found
