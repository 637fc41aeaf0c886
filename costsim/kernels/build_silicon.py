"""Makes the calibrations that ship, from the silicon tables: ``costsim calibrate --from silicon``.

For every kernel (operator and data types) and every engine the newest version is taken that
measured it widely; older versions serve as held-out data. Kernels timed with the host in the way
(a floor of tens of microseconds that a captured graph does not have) are left out where another
engine timed the same kernel without.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration, Key, Surface
from costsim.kernels.fit import fit_with_error, reference_rates
from costsim.kernels.modules import rest_tables
from costsim.kernels.plausible import possible
from costsim.kernels.readers.modules import read_modules
from costsim.kernels.readers.silicon import read_silicon
from costsim.kernels.store import write_calibration
from costsim.kernels.surface_fit import (
    FEWEST,
    Kernel,
    error_figures,
    kernels,
    log_errors,
)

# System of the tables → (name of the calibration, hardware profile).
SYSTEMS: dict[str, tuple[str, str]] = {
    "a100_sxm": ("a100_sxm", "a100_sxm_80gb"),
    "h100_sxm": ("h100_sxm", "h100_sxm"),
    "h200_sxm": ("h200_sxm", "h200_sxm"),
    "b200_sxm": ("b200_sxm", "b200_sxm"),
    "b300_sxm": ("b300_sxm", "b300_sxm"),
    "gb200": ("gb200", "gb200_nvl72"),
    "gb300": ("gb300", "gb300_nvl72"),
    "l40s": ("l40s", "l40s"),
    "rtx_pro_6000_server": ("rtx_pro_6000", "rtx_pro_6000"),
}
# A newer version counts if it measured at least this share of what the widest one did.
WIDE_ENOUGH = 0.3
# A newer version that measured fewer shapes counts too where it is this many times as fast (or
# slow) on at least so many of the same: what the older one measured does not run any more.
ANOTHER_KERNEL, COMMON_ROWS = 1.5, 20
# A single kernel whose shortest call takes longer than this, and several times what another
# engine's takes, was timed with the host.
HOST_FLOOR_S = 15e-6
HOST_FLOOR_RATIO = 3.0
# What a decoding layer takes at most at its shortest (of this share of the rows) beside its
# projections, if it was timed as a server runs it.
LAYER_FLOOR_S, FLOOR_SHARE = {"mla_decode": 30e-6, "dsa_decode": 90e-6}, 0.02

Progress = Callable[[str, int, int], None]


def build(
    system: str, output: Path | str | None = None, progress: Progress | None = None
) -> Calibration:
    """Fit the calibration of a system of the silicon tables and write it where asked.

    Args:
        system: a key of `SYSTEMS`.
        output: file or folder to write to; not written if None.
        progress: called with the kernel, its number and their count.

    Raises:
        InputError: an unknown system, or the extra ``silicon`` is not installed.
    """
    if system not in SYSTEMS:
        raise unknown_name("system", system, SYSTEMS)
    name, profile = SYSTEMS[system]
    hardware = load_hardware(profile)
    measured = [k for t in read_silicon(system) for k in kernels(t)]
    everything = [k.select(np.flatnonzero(possible(k, hardware))) for k in measured]
    impossible = sum(len(k.latency_s) for k in measured) - sum(
        len(k.latency_s) for k in everything)
    surfaces, dropped = without_host_bound(_fitted(everything, hardware, progress))
    layers = _layers(system, Calibration(name, "", surfaces), hardware)
    kept = as_served(layers)
    surfaces |= _fitted(kept, hardware, progress)
    unserved = {_software(k) for k in layers} - {_software(k) for k in kept}
    about: dict[str, Any] = {
        **reference_rates(hardware), "made": datetime.date.today().isoformat(),
        "command": f"costsim calibrate --from silicon --system {system}",
        "source": "aiconfigurator-core (Apache-2.0)", "left_out": dropped,
        "layers_left_out": sorted(" ".join(software) for software in unserved),
        "impossible_rows_left_out": impossible}
    found = Calibration(name, f"calibrated: {name} from aiconfigurator-core", surfaces,
                        about=about)
    if output is not None:
        path = Path(output)
        write_calibration(found, path / f"{name}.json" if path.is_dir() else path)
    return found


def _fitted(
    found: Sequence[Kernel], hardware: Hardware, progress: Progress | None
) -> dict[Key, Surface]:
    """Return the surface of each kernel's chosen version, with the errors of the others."""
    surfaces: dict[Key, Surface] = {}
    chosen = choose_versions(found)
    for number, kernel in enumerate(chosen):
        if progress:
            progress(f"{kernel.operator} {kernel.variant} {kernel.engine}", number, len(chosen))
        newest = fit_with_error(kernel, hardware, blocks=True)
        surfaces[kernel.operator, kernel.variant, kernel.engine] = replace(newest, about={
            **newest.about, **_versions(newest, kernel, found, hardware)})
    return surfaces


def _layers(system: str, gemms: Calibration, hardware: Hardware) -> list[Kernel]:
    """Return what whole attention layers take beside their projections, where new.

    Args:
        system: of the tables.
        gemms: calibration with the projections; kernels measured by themselves stay as they are.
        hardware: as in `build`.
    """
    tables = rest_tables(read_modules(system), gemms, hardware)
    found = [k.select(np.flatnonzero(possible(k, hardware))) for t in tables for k in kernels(t)]
    return [k for k in found if (k.operator, k.variant, k.engine) not in gemms.surfaces]


def _software(kernel: Kernel) -> tuple[str, str, str]:
    return kernel.operator.split("_")[0], kernel.engine, kernel.table.version


def as_served(found: Sequence[Kernel]) -> list[Kernel]:
    """Return attention layers without those of software that was timed as no server runs it.

    Where next to nothing is to be done, what lies between the projections of a captured layer
    takes 9 to 15 us, of a sparse one 6 to 47 us. vLLM's take four times as long in the tables of
    all systems but one, and its prompts a fixed time a token longer: rotation, norms and
    quantisation as one call each, which a server compiles into few.
    """
    slow = {_software(k) for k in found if k.operator in LAYER_FLOOR_S and float(
        np.quantile(k.latency_s, FLOOR_SHARE)) > LAYER_FLOOR_S[k.operator]}
    return [k for k in found if _software(k) not in slow]


def _versions(
    surface: Surface, kernel: Kernel, everything: Sequence[Kernel], hardware: Hardware
) -> dict[str, Any]:
    """Return how the surface of one software version does on the rows of the others."""
    key = (kernel.operator, kernel.variant, kernel.engine)
    others = [k for k in everything if (k.operator, k.variant, k.engine) == key
              and k.table.version != kernel.table.version and len(k.latency_s) >= FEWEST]
    figures = {k.table.version: error_figures(log_errors(surface, k, hardware)) for k in others}
    return {"other_versions": figures} if figures else {}


def choose_versions(found: Sequence[Kernel]) -> list[Kernel]:
    """Return one kernel for each operator, variant and engine: its newest wide measurement."""
    groups: dict[Key, list[Kernel]] = {}
    for kernel in found:
        if len(kernel.latency_s) >= FEWEST:
            key = (kernel.operator, kernel.variant, kernel.engine)
            groups.setdefault(key, []).append(kernel)
    return [_newest_wide(group) for _, group in sorted(groups.items())]


def _newest_wide(group: Sequence[Kernel]) -> Kernel:
    most = max(len(k.latency_s) for k in group)
    wide = [k for k in group if len(k.latency_s) >= WIDE_ENOUGH * most]
    best = max(wide, key=lambda k: version_key(k.table.version))
    newest = max(group, key=lambda k: version_key(k.table.version))
    return newest if newest is not best and _another_kernel(newest, best) else best


def _another_kernel(newer: Kernel, older: Kernel) -> bool:
    """Return whether two versions differ so much on the same shapes that the kernel changed."""
    one, other = _by_shape(newer), _by_shape(older)
    ratios = [np.log(t / other[shape]) for shape, t in one.items() if shape in other]
    return len(ratios) >= COMMON_ROWS and abs(float(np.median(ratios))) > np.log(ANOTHER_KERNEL)


def _by_shape(kernel: Kernel) -> dict[tuple[Any, ...], float]:
    columns = [np.broadcast_to(np.asarray(kernel.shape[name]), kernel.latency_s.shape).tolist()
               for name in sorted(kernel.shape)]
    return dict(zip(zip(*columns, strict=True), kernel.latency_s.tolist(), strict=True))


def version_key(version: str) -> tuple[int, ...]:
    """Return a key that sorts versions: 0.5.9 < 0.5.14, 1.0 < 1.3rc10 < 1.3rc20."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def without_host_bound(
    surfaces: dict[Key, Surface],
) -> tuple[dict[Key, Surface], list[str]]:
    """Return the surfaces without those timed with the host in the way, and those left out."""
    dropped = []
    for operator, kernel, engine in surfaces:
        if operator != "gemm":
            continue
        launch = surfaces[operator, kernel, engine].efficiency.launch_s
        others = [s.efficiency.launch_s for k, s in surfaces.items()
                  if k[:2] == (operator, kernel) and k[2] != engine]
        if launch > HOST_FLOOR_S and others and launch > HOST_FLOOR_RATIO * min(others):
            dropped.append((operator, kernel, engine))
    kept = {k: s for k, s in surfaces.items() if k not in dropped}
    return kept, [" ".join(k) for k in dropped]
