"""Corrections as text in JSON: whole steps, differenced and deflated."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.kernels.correction import Correction

# Values are stored in steps of at least 1 %.
STEP = 0.01


def encode(correction: Correction, step: float = STEP) -> dict[str, Any]:
    """Return the grid as JSON: axes rounded, measured values as packed steps.

    With the first axis fastest, a bit for each node says whether it was measured. Steps of the
    measured ones are differenced (modulo 2^16, which undoes itself), mapped to 0, −1, 1, −2 … →
    0, 1, 2, 3 …, their low bytes and then their high ones deflated, and written in base 64.

    Args:
        correction: to encode.
        step: size of a step; doubled should the largest value not fit into 15 bits of them.
    """
    flat = correction.values.ravel(order="F")
    measured = ~np.isnan(flat)
    while np.max(np.abs(flat[measured]), initial=0.0) > 32767 * step:
        step *= 2.0
    steps = np.round(flat[measured] / step).astype("<i2")
    change = np.diff(steps, prepend=np.int16(0)).astype(np.int16)
    unsigned = ((change << 1) ^ (change >> 15)).astype("<u2")
    planes = unsigned.view(np.uint8).reshape(-1, 2).T
    return {"axes": [[round(float(x), 3) for x in a] for a in correction.axes],
            "step": step, "measured": _packed(np.packbits(measured).tobytes()),
            "values": _packed(planes.tobytes())}


def _packed(data: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode("ascii")


def _unpacked(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def decode(data: dict[str, Any]) -> Correction:
    """Return the grid that `encode` wrote."""
    axes = tuple(np.array(a, float) for a in data["axes"])
    shape = [max(len(a), 1) for a in axes]
    planes = _unpacked(data["values"])
    unsigned: NDArray[Any] = np.ascontiguousarray(planes.reshape(2, -1).T).view("<u2").reshape(-1)
    change = (unsigned >> 1).astype(np.int16) ^ -(unsigned & 1).astype(np.int16)
    steps = np.cumsum(change, dtype=np.int16)
    values = np.full(int(np.prod(shape)), np.nan)
    bits = np.unpackbits(_unpacked(data["measured"]), count=len(values))
    values[bits.astype(bool)] = steps * float(data["step"])
    return Correction(axes, values.reshape(shape, order="F"))
