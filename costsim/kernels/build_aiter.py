"""Makes the calibrations of AMD's accelerators that ship, from a clone of AITER.

``costsim calibrate --from CLONE --system mi300x``: tuned kernels from AITER's tables, of its
present commit and of those that `build_aiter.toml` names, and single published measurements of what
they do not hold (`published_kernels.csv`). All other kernels are borrowed from a relative.
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration, Key, Surface, ideal_times
from costsim.kernels.fit import fit_with_error, reference_rates
from costsim.kernels.plausible import check_on
from costsim.kernels.readers.aiter import aiter_files, read_aiter
from costsim.kernels.store import write_calibration
from costsim.kernels.surface_fit import FEWEST, Kernel, kernels
from costsim.kernels.table import KernelTable, read_csv
from costsim.loading import read_toml

RECIPE = Path(__file__).with_suffix(".toml")
PUBLISHED = Path(__file__).parent / "published_kernels.csv"

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
        tables = [*read_aiter([*files, *older], hardware, commit), *published(hardware)]
    found = [k for t in tables for k in kernels(check_on(t, hardware))]
    usable = [k for k in found if len(k.latency_s) >= FEWEST and spans_both(k, hardware)]
    surfaces: dict[Key, Surface] = {}
    for number, kernel in enumerate(usable):
        if progress:
            progress(f"{kernel.operator} {kernel.variant}", number, len(usable))
        key = (kernel.operator, kernel.variant, kernel.engine)
        surfaces[key] = fit_with_error(kernel, hardware, blocks=True)
    about: dict[str, Any] = {
        **reference_rates(hardware), "made": datetime.date.today().isoformat(),
        "command": f"costsim calibrate --from CLONE --system {system}",
        "source": f"ROCm/aiter (MIT) @{commit}, tuned-kernel tables; older tables of "
                  + ", ".join(f"@{each['commit'][:8]}" for each in recipe["older"]),
        "published": sorted({t.source for t in published(hardware)}),
        "left_out": [f"{k.operator} {k.variant} {k.engine}" for k in found if k not in usable],
        "others_from": recipe["others_from"][system]}
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


def spans_both(kernel: Kernel, hardware: Hardware) -> bool:
    """Return whether a GEMM's rows reach both of its limits, arithmetic and memory.

    A table of decode shapes alone would leave the fit to guess what a prefill reaches.
    """
    if kernel.operator != "gemm":
        return True
    compute, memory, _ = ideal_times(kernel.operator, hardware, kernel.shape)
    return bool(np.any(compute > memory) and np.any(memory > compute))
