"""Makes the calibrations of AMD's accelerators that ship, from a clone of AITER.

``costsim calibrate --from CLONE --system mi300x``: tuned kernels from AITER's tables, of its
present commit and of those that `build_aiter.toml` names, and single published measurements of what
they do not hold (`published_kernels.csv`), of which few make no fit: they tell what share of the
peak a relative's kernel reaches here. All other kernels are borrowed from the relative as they are.
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import (
    WIDENING_BORROWED,
    Calibration,
    Key,
    Surface,
    ideal_times,
)
from costsim.kernels.fit import fit_with_error, reference_rates
from costsim.kernels.plausible import check_on
from costsim.kernels.readers.aiter import aiter_files, read_aiter
from costsim.kernels.store import load_calibration, write_calibration
from costsim.kernels.surface_fit import FEWEST, Kernel, enough_for, kernels, log_errors
from costsim.kernels.table import KernelTable, read_csv
from costsim.loading import read_toml

RECIPE = Path(__file__).with_suffix(".toml")
PUBLISHED = Path(__file__).parent / "published_kernels.csv"

# Newton's steps towards the share of the peak: rows that arithmetic limits need one or two.
PASSES = 6

Progress = Callable[[str, int, int], None]


def build(
    system: str, clone: Path, output: Path | None = None, progress: Progress | None = None,
) -> Calibration:
    """Fit the calibration of an AMD accelerator and write it where asked.

    Args:
        system: a key of ``others_from`` in `RECIPE`.
        clone: of AITER, with its history.
        output: folder to write to; not written if None.
        progress: called with the kernel, its number and their count.

    Raises:
        InputError: an unknown system, no rows of it, or a clone without the commits needed.
    """
    recipe = read_toml(RECIPE)
    if system not in recipe["others_from"]:
        raise unknown_name("system", system, recipe["others_from"])
    hardware = load_hardware(system)
    files = aiter_files(clone)
    if not files:
        raise InputError(f"{clone}: holds none of AITER's tuned-kernel tables")
    commit = _git(clone, "rev-parse", "HEAD").strip()[:8]
    with TemporaryDirectory() as folder:
        older = _older(clone, recipe["older"], Path(folder))
        tables = read_aiter([*files, *older], hardware, commit)
    single = published(hardware)
    found = [k for t in (*tables, *single)
             for k in kernels(check_on(t, hardware))]
    lent = load_calibration(recipe["others_from"][system])
    surfaces: dict[Key, Surface] = {}
    for number, kernel in enumerate(found):
        if progress:
            progress(f"{kernel.operator} {kernel.variant}", number, len(found))
        surface = _surface(kernel, hardware, lent)
        if surface is not None:
            surfaces[_key(kernel)] = surface
    about: dict[str, Any] = {
        **reference_rates(hardware), "made": datetime.date.today().isoformat(),
        "command": f"costsim calibrate --from CLONE --system {system}",
        "source": f"ROCm/aiter (MIT) @{commit}, tuned-kernel tables; older tables of "
                  + ", ".join(f"@{each['commit'][:8]}" for each in recipe["older"]),
        "published": sorted({t.source for t in single}),
        "left_out": [" ".join(_key(k)) for k in found if _key(k) not in surfaces],
        "others_from": recipe["others_from"][system],
        "others_apart": recipe.get("others_apart", {}).get(system, 0.0)}
    result = Calibration(system, f"calibrated: {system} from AITER's tuned kernels", surfaces,
                         about=about)
    if output is not None:
        write_calibration(result, output / f"{system}.json")
    return result


def _older(clone: Path, recipe: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write tables of other commits to a folder and return their paths."""
    found = []
    for each in recipe:
        for name in each["files"]:
            path = folder / each["commit"][:8] / Path(name).name
            path.parent.mkdir(exist_ok=True)
            path.write_text(_git(clone, "show", f"{each['commit']}:{name}"), encoding="utf-8")
            found.append(path)
    return found


def _git(clone: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(clone), *words], capture_output=True, text=True,
                              check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise InputError(f"{clone}: not a clone of ROCm/aiter with all branches: {said}") from None
    return done.stdout


def published(hardware: Hardware) -> list[KernelTable]:
    """Return single published measurements on an accelerator."""
    return [t for t in read_csv(PUBLISHED) if t.device == hardware.title]


def _key(kernel: Kernel) -> Key:
    return kernel.operator, kernel.variant, kernel.engine


def _surface(kernel: Kernel, hardware: Hardware, lent: Calibration) -> Surface | None:
    """Return the fit of a kernel, a relative's put right by its rows, or None: rows of no use.

    Rows of which arithmetic limits nearly all would leave the fit to guess what memory and launches
    cost, and decodes alone what a prefill reaches.
    """
    if kernel.operator in ("gemm", "attention_prefill"):
        compute, memory, _ = ideal_times(kernel.operator, hardware, kernel.shape)
        arithmetic = np.flatnonzero(compute > memory)
        if len(compute) - len(arithmetic) < FEWEST and len(arithmetic):
            return put_right(kernel.select(arithmetic), hardware, lent)
        if len(arithmetic) < FEWEST:
            return None
    return fit_with_error(kernel, hardware, blocks=True) if len(
        kernel.latency_s) >= FEWEST else None


def put_right(kernel: Kernel, hardware: Hardware, lent: Calibration) -> Surface:
    """Return a relative's surface at the share of the peak that a few rows reach.

    Args:
        kernel: rows that arithmetic limits.
        hardware: they were measured on.
        lent: the relative's calibration; launches, bandwidth and correction stay as they are there.
    """
    surface, wider = lent.surface(kernel.operator, kernel.variant)
    error = surface.efficiency.log_error * wider * WIDENING_BORROWED
    for _ in range(PASSES):
        share = surface.efficiency.compute * np.exp(
            -np.median(log_errors(surface, kernel, hardware)))
        surface = replace(surface, efficiency=replace(surface.efficiency, compute=float(share)))
    missed = log_errors(surface, kernel, hardware)
    error = max(error, enough_for(missed))
    about = {"version": kernel.table.version, "put_right": {
        "from": lent.name, "rows": len(missed), "share_of_peak": float(f"{share:.3g}")}}
    return Surface(replace(surface.efficiency, log_error=error), surface.correction, len(missed),
                   about)
