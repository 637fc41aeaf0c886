"""What tells one calibration from every other, in a few letters."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from costsim.kernels.calibration import Calibration

_KNOWN: dict[int, tuple[Any, str]] = {}  # by identity; the surfaces are kept, so that it stays


def fingerprint(calibration: Calibration) -> str:
    """Return a digest of a calibration's figures, worked out once for each set of surfaces.

    Args:
        calibration: whose surfaces, engine, widening and rest count.
    """
    known = _KNOWN.get(id(calibration.surfaces))
    if known is None:
        digest = hashlib.sha256()
        for key in sorted(calibration.surfaces):
            surface = calibration.surfaces[key]
            digest.update(repr(key).encode())
            _feed(digest, surface.efficiency)
            _feed(digest, surface.correction)
        known = _KNOWN[id(calibration.surfaces)] = (calibration.surfaces, digest.hexdigest())
    sureness = f"{calibration.widening:g} {calibration.apart:g}"
    own = f"{calibration.name} {calibration.engine} {sureness} {known[1][:24]}"
    return own if calibration.rest is None else f"{own} {fingerprint(calibration.rest)}"


def _feed(digest: Any, value: Any) -> None:
    """Feed numbers, arrays, and whatever holds them, into a digest."""
    if is_dataclass(value):
        for field in fields(value):
            if field.repr:
                _feed(digest, getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
