"""Calibrations as JSON files: small, with their held-out figures and where they come from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costsim import library
from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import list_hardware, load_hardware
from costsim.kernels.calibration import WIDENING_BORROWED, Calibration, Surface
from costsim.kernels.correction import STEP, decode, encode
from costsim.kernels.efficiency import Efficiency
from costsim.loading import read_json

FOLDER = "hardware_profiles/calibrations"
FORMAT = 3


def shipped_calibrations() -> list[str]:
    """Return the names of the calibrations found in the data folders."""
    return library.names(FOLDER, (".json",))


LARGEST_BYTES = 198_000


def write_calibration(calibration: Calibration, path: Path | str) -> Path:
    """Write a calibration; `read_calibration` gives it back (corrections to within a step).

    Steps are a small part of each surface's own error, coarser where the file would otherwise
    pass `LARGEST_BYTES`.
    """
    coarseness, text = 1.0, _text(calibration, 1.0)
    while len(text) > LARGEST_BYTES and coarseness < 8.0:
        coarseness *= 1.25
        text = _text(calibration, coarseness)
    return write_atomically(path, text)


# A step of a correction, as a share of the surface's log error.
STEP_SHARE = 0.12


def _text(calibration: Calibration, coarseness: float) -> str:
    surfaces = [
        {"operator": key[0], "variant": key[1], "engine": key[2],
         "efficiency": {k: float(f"{v:.5g}") for k, v in asdict(surface.efficiency).items()},
         "correction": _packed(surface, coarseness),
         "rows": surface.rows, "about": dict(surface.about)}
        for key, surface in sorted(calibration.surfaces.items())]
    lines = ",\n".join(json.dumps(s, separators=(",", ":")) for s in surfaces)
    head = json.dumps({"format": FORMAT, "name": calibration.name,
                       "provenance": calibration.provenance, "about": dict(calibration.about)},
                      indent=1)
    return f'{head[:-2]},\n "surfaces": [\n{lines}\n]}}\n'


def _packed(surface: Surface, coarseness: float) -> dict[str, Any] | None:
    if surface.correction is None:
        return None
    step = max(STEP, STEP_SHARE * surface.efficiency.log_error) * coarseness
    return encode(surface.correction, round(step, 4))


def read_calibration(name: str | Path) -> Calibration:
    """Return a calibration by name (searched in the data folders) or by path.

    Raises:
        InputError: it does not exist, or it is malformed.
    """
    path = library.find(FOLDER, str(name), (".json",))
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, modified: int) -> Calibration:
    data = read_json(path)
    try:
        if data["format"] != FORMAT:
            raise InputError(f"{path}: format {data['format']}, this version reads {FORMAT}")
        surfaces = {(s["operator"], s["variant"], s["engine"]): _surface(s)
                    for s in data["surfaces"]}
        return Calibration(data["name"], data["provenance"], surfaces, about=data["about"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a calibration: {error!r}") from None


def _surface(data: dict[str, Any]) -> Surface:
    correction = data["correction"]
    return Surface(Efficiency(**data["efficiency"]), correction and decode(correction),
                   data["rows"], data["about"])


def load_calibration(hardware: Hardware | str) -> Calibration:
    """Return the calibration of an accelerator: its own, its relative's, or the roofline.

    Args:
        hardware: a profile, or the name (or file) of a calibration or of a profile.

    Raises:
        InputError: a calibration that is named does not exist or is malformed.
    """
    if isinstance(hardware, str):
        if hardware in shipped_calibrations() or hardware not in list_hardware():
            return read_calibration(hardware)
        hardware = load_hardware(hardware)
    if hardware.calibration and hardware.calibration in shipped_calibrations():
        return read_calibration(hardware.calibration)
    relative = hardware.borrowed_calibration
    if relative and relative in shipped_calibrations():
        found = read_calibration(relative)
        return replace(found, provenance=f"borrowed from {relative} ({found.provenance})",
                       widening=WIDENING_BORROWED)
    return Calibration.roofline()
