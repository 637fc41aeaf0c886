"""Calibrations as JSON files: small, with their held-out figures and where they come from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from costsim import library
from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import list_hardware, load_hardware
from costsim.kernels.calibration import WIDENING_BORROWED, Calibration, Key, Surface
from costsim.kernels.correction import Array
from costsim.kernels.efficiency import Efficiency
from costsim.kernels.packing import (
    STEP,
    compact,
    decode,
    decode_keys,
    decode_layers,
    encode,
    encode_keys,
    encode_layers,
    expanded,
)
from costsim.loading import read_json

FOLDER = "hardware_profiles/calibrations"
FORMAT = 5


def shipped_calibrations() -> list[str]:
    """Return the names of the calibrations found in the data folders."""
    return library.names(FOLDER, (".json",))


LARGEST_BYTES = 198_000


def write_calibration(calibration: Calibration, path: Path | str) -> Path:
    """Write a calibration; `read_calibration` gives it back (corrections to within a step).

    Steps are a part of each surface's own error, coarser where the file would otherwise pass
    `LARGEST_BYTES`. Axes that several surfaces share are written once.
    """
    coarseness, text = 1.0, _text(calibration, 1.0)
    while len(text) > LARGEST_BYTES and coarseness < 8.0:
        coarseness *= 1.25
        text = _text(calibration, coarseness)
    return write_atomically(path, text)


# A step of a correction, as a share of the surface's median error: rounding to the nearest step
# then adds a few hundredths of that error.
STEP_SHARE = 1.0
# The median of a normal distribution's size, for surfaces without held-out rows.
MEDIAN = 0.6745


def _text(calibration: Calibration, coarseness: float) -> str:
    axes: dict[tuple[float, ...], int] = {}
    keys = _layer_keys(calibration.surfaces)
    surfaces = [
        {"operator": key[0], "variant": key[1], "engine": key[2],
         "efficiency": _unlike(asdict(surface.efficiency), asdict(Efficiency())),
         **_packed(surface, coarseness, axes, keys.get(key[0])),
         "rows": surface.rows, "about": compact(surface.about)}
        for key, surface in sorted(calibration.surfaces.items())]
    lines = ",\n".join(json.dumps(s, separators=(",", ":")) for s in surfaces)
    head = json.dumps({"format": FORMAT, "name": calibration.name,
                       "provenance": calibration.provenance, "about": dict(calibration.about)},
                      indent=1)
    shared = ",\n".join(json.dumps(a, separators=(",", ":")) for a in axes)
    layers = json.dumps({o: encode_keys(k) for o, k in keys.items()}, separators=(",", ":"))
    return (f'{head[:-2]},\n "axes": [\n{shared}\n],\n "layers": {layers},\n'
            f' "surfaces": [\n{lines}\n]}}\n')


def _layer_keys(surfaces: Mapping[Key, Surface]) -> dict[str, Array]:
    """Return all layers that any surface of an operator has factors of, by operator."""
    found: dict[str, list[Array]] = {}
    for key, surface in surfaces.items():
        if surface.layers is not None:
            found.setdefault(key[0], []).append(surface.layers.keys)
    return {operator: np.unique(np.vstack(keys), axis=0) for operator, keys in found.items()}


def _unlike(values: dict[str, float], usual: dict[str, float]) -> dict[str, float]:
    """Return those values, rounded, that are not the usual ones."""
    return {k: float(f"{v:.4g}") for k, v in values.items() if v != usual[k]}


def _packed(
    surface: Surface, coarseness: float, axes: dict[tuple[float, ...], int], keys: Array | None
) -> dict[str, Any]:
    """Return correction and layers as JSON; axes are numbers of those in ``axes``, which grows."""
    if surface.correction is None:
        return {"correction": None}
    error = surface.about.get("held_out", {}).get("median", MEDIAN * surface.efficiency.log_error)
    step = max(STEP, STEP_SHARE * error) * coarseness
    packed = encode(surface.correction, round(step, 4))
    numbers = [axes.setdefault(tuple(a), len(axes)) for a in packed["axes"]]
    correction = {"correction": {**packed, "axes": numbers}}
    if surface.layers is None or keys is None:
        return correction
    return {**correction, "layers": encode_layers(surface.layers, keys, round(step / 2, 4))}


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
        axes = data["axes"]
        keys = {operator: decode_keys(k) for operator, k in data.get("layers", {}).items()}
        surfaces = {(s["operator"], s["variant"], s["engine"]): _surface(s, axes, keys)
                    for s in data["surfaces"]}
        return Calibration(data["name"], data["provenance"], surfaces, about=data["about"])
    except (IndexError, KeyError, TypeError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a calibration: {error!r}") from None


def _surface(
    data: dict[str, Any], axes: list[list[float]], keys: Mapping[str, Array]
) -> Surface:
    packed = data["correction"]
    correction = packed and decode({**packed, "axes": [axes[i] for i in packed["axes"]]})
    layers = None
    if "layers" in data:
        layers = decode_layers(data["layers"], data["operator"], keys[data["operator"]])
    return Surface(Efficiency(**data["efficiency"]), correction, data["rows"],
                   expanded(data["about"]), layers)


def load_calibration(hardware: Hardware | str) -> Calibration:
    """Return the calibration of an accelerator: its own, its relative's, or the roofline.

    Args:
        hardware: a profile, or the name (or file) of a calibration or of a profile.

    Raises:
        InputError: a calibration that is named does not exist or is malformed.
    """
    if isinstance(hardware, str):
        if hardware in shipped_calibrations() or hardware not in list_hardware():
            return with_others(read_calibration(hardware))
        hardware = load_hardware(hardware)
    if _ships(hardware.calibration):
        return with_others(read_calibration(hardware.calibration))
    if _ships(hardware.borrowed_calibration):
        return borrowed(hardware.borrowed_calibration)
    return Calibration.roofline()


def _ships(name: str) -> bool:
    return bool(name) and library.exists(FOLDER, name, ".json")


def borrowed(relative: str, apart: float = 0.0) -> Calibration:
    """Return a relative's calibration, with a wider error.

    Args:
        relative: name of its calibration.
        apart: log error to add where its kernels are another vendor's.
    """
    found = with_others(read_calibration(relative))
    return replace(found, provenance=f"borrowed from {relative} ({found.provenance})",
                   widening=WIDENING_BORROWED, apart=apart)


def with_others(found: Calibration) -> Calibration:
    """Return a calibration with what it says its missing kernels come from.

    ``others_of`` names a calibration of the same accelerator, ``others_from`` that of a relative,
    and ``others_apart`` is the log error to add for its being another vendor's.
    """
    same, relative = found.about.get("others_of", ""), found.about.get("others_from", "")
    if _ships(same):
        return replace(found, rest=with_others(read_calibration(same)),
                       provenance=f"{found.provenance}; the rest from {same}")
    if _ships(relative):
        return replace(found, rest=borrowed(relative, found.about.get("others_apart", 0.0)),
                       provenance=f"{found.provenance}; the rest borrowed from {relative}")
    return found
