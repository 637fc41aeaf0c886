"""Corrections as text in JSON: whole steps, differenced and deflated."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.kernels.correction import Correction
from costsim.kernels.layers import LAYERS, Layers

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
    step, values = _packed_steps(flat[measured], step)
    return {"axes": [[round(float(x), 3) for x in a] for a in correction.axes],
            "step": step, "measured": _packed(np.packbits(measured).tobytes()), "values": values}


def _packed_steps(values: NDArray[np.float64], step: float) -> tuple[float, str]:
    """Return the size of a step, doubled until the values fit, and the values in such steps."""
    while np.max(np.abs(values), initial=0.0) > 32767 * step:
        step *= 2.0
    steps = np.round(values / step).astype("<i2")
    change = np.diff(steps, prepend=np.int16(0)).astype(np.int16)
    unsigned = ((change << 1) ^ (change >> 15)).astype("<u2")
    return step, _packed(unsigned.view(np.uint8).reshape(-1, 2).T.tobytes())


def _unpacked_steps(text: str, step: float) -> NDArray[np.float64]:
    planes = _unpacked(text)
    unsigned: NDArray[Any] = np.ascontiguousarray(planes.reshape(2, -1).T).view("<u2").reshape(-1)
    change = (unsigned >> 1).astype(np.int16) ^ -(unsigned & 1).astype(np.int16)
    return np.asarray(np.cumsum(change, dtype=np.int16) * step, float)


def _packed(data: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode("ascii")


def _unpacked(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def decode(data: dict[str, Any]) -> Correction:
    """Return the grid that `encode` wrote."""
    axes = tuple(np.array(a, float) for a in data["axes"])
    shape = [max(len(a), 1) for a in axes]
    values = np.full(int(np.prod(shape)), np.nan)
    bits = np.unpackbits(_unpacked(data["measured"]), count=len(values))
    values[bits.astype(bool)] = _unpacked_steps(data["values"], float(data["step"]))
    return Correction(axes, values.reshape(shape, order="F"))


def encode_keys(keys: NDArray[np.float64]) -> dict[str, Any]:
    """Return a table of layers as JSON: the values of each column, and which each layer has."""
    found = [np.unique(column, return_inverse=True) for column in keys.T]
    numbers = np.stack([number.reshape(-1) for _, number in found]).astype("<u2")
    return {"values": [values.tolist() for values, _ in found],
            "numbers": _packed(numbers.tobytes())}


def decode_keys(data: dict[str, Any]) -> NDArray[np.float64]:
    """Return the table that `encode_keys` wrote."""
    numbers = _unpacked(data["numbers"]).view("<u2").reshape(len(data["values"]), -1)
    return np.stack([np.array(values, float)[number]
                     for values, number in zip(data["values"], numbers, strict=True)], axis=1)


def encode_layers(layers: Layers, keys: NDArray[np.float64], step: float) -> dict[str, Any]:
    """Return factors of layers as JSON, in the order of a table of them that kernels share.

    Args:
        layers: to encode; keys: of all layers, sorted, of which they have some.
        step: size of a step.
    """
    values = np.zeros((len(keys), len(layers.nodes)))
    order = {tuple(key): row for row, key in enumerate(keys.tolist())}
    values[[order[tuple(key)] for key in layers.keys.tolist()]] = layers.values
    step, packed = _packed_steps(values.ravel(order="F"), step)
    return {"nodes": layers.nodes.tolist(), "step": step, "values": packed}


def decode_layers(data: dict[str, Any], operator: str, keys: NDArray[np.float64]) -> Layers:
    """Return the factors that `encode_layers` wrote, of all layers of the table."""
    columns, along = LAYERS[operator]
    steps = _unpacked_steps(data["values"], float(data["step"]))
    return Layers(columns, along, keys, np.array(data["nodes"], float),
                  steps.reshape((len(keys), -1), order="F"))


# Held-out figures stand in files as lists, in this order.
FIGURES = ("rows", "median", "p90", "bias")
OF_BLOCK = (("rows", 1), ("fit", 3), ("table", 2), ("roofline", 2))


def compact(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a surface with its held-out figures as lists."""
    short = dict(about)
    if about.get("held_out"):
        short["held_out"] = [about["held_out"][name] for name in FIGURES]
    if "other_versions" in about:
        short["other_versions"] = {version: [figures[name] for name in FIGURES]
                                   for version, figures in about["other_versions"].items()}
    if "blocks" in about:
        short["blocks"] = {
            block: [x for name, _ in OF_BLOCK for x in np.atleast_1d(figures[name]).tolist()]
            for block, figures in about["blocks"].items()}
    return short


def expanded(short: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `compact` was given."""
    about = dict(short)
    if short.get("held_out"):
        about["held_out"] = dict(zip(FIGURES, short["held_out"], strict=True))
    if "other_versions" in short:
        about["other_versions"] = {version: dict(zip(FIGURES, figures, strict=True))
                                   for version, figures in short["other_versions"].items()}
    if "blocks" in short:
        about["blocks"] = {block: _of_block(list(x)) for block, x in short["blocks"].items()}
    return about


def _of_block(numbers: list[float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, count in OF_BLOCK:
        found[name], numbers = numbers[:count], numbers[count:]
    return {**found, "rows": int(found["rows"][0])}
