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
    """Return the grid as JSON: axes rounded, values as packed steps.

    Steps are differenced along the first axis (modulo 2^16, which undoes itself), mapped to
    0, −1, 1, −2 … → 0, 1, 2, 3 …, laid out with the first axis fastest, their low bytes and then
    their high ones deflated by run lengths, and written in base 64.

    Args:
        correction: to encode.
        step: size of a step; doubled should the largest value not fit into 15 bits of them.
    """
    while np.max(np.abs(correction.values), initial=0.0) > 32767 * step:
        step *= 2.0
    steps = np.round(correction.values / step).astype("<i2")
    change = np.diff(steps, axis=0, prepend=np.int16(0)).astype(np.int16)
    unsigned = ((change << 1) ^ (change >> 15)).astype("<u2").ravel(order="F")
    planes = unsigned.view(np.uint8).reshape(-1, 2).T
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    data = packer.compress(planes.tobytes()) + packer.flush()
    return {"axes": [[round(float(x), 3) for x in a] for a in correction.axes],
            "step": step, "values": base64.b64encode(data).decode("ascii")}


def decode(data: dict[str, Any]) -> Correction:
    """Return the grid that `encode` wrote."""
    axes = tuple(np.array(a, float) for a in data["axes"])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(data["values"])), np.uint8)
    unsigned: NDArray[Any] = np.ascontiguousarray(planes.reshape(2, -1).T).view("<u2").reshape(-1)
    change = (unsigned >> 1).astype(np.int16) ^ -(unsigned & 1).astype(np.int16)
    grid = change.reshape([len(a) for a in axes], order="F")
    steps = np.cumsum(grid, axis=0, dtype=np.int16)
    return Correction(axes, np.ascontiguousarray(steps, float) * float(data["step"]))
