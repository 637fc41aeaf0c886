"""Factors of single layers: found, kept in files, nothing for layers that were not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.fit import fit
from costsim.kernels.layers import LAYERS, Layers, fit_layers
from costsim.kernels.packing import compact, decode_keys, encode_keys, expanded
from costsim.kernels.store import read_calibration, write_calibration
from costsim.kernels.table import KernelTable, make_table

H100 = load_hardware("h100_sxm")


def layers_of(shapes: int, tokens: int) -> dict[str, Any]:
    """Every layer at every number of tokens."""
    layer, count = (x.ravel() for x in np.meshgrid(np.arange(shapes), 2.0 ** np.arange(tokens)))
    return {"hidden": 1024.0 * (1 + layer % 4), "width": 256.0 * (1 + layer // 4), "top_k": 8.0,
            "experts": 64.0, "moe_tp": 1.0, "ep": 1.0, "gated": 1.0, "tokens": count}


def measured(slow: dict[float, float]) -> KernelTable:
    """Layers of one smooth cost, those of some widths slower."""
    shape = {k: np.broadcast_to(v, 160) for k, v in layers_of(16, 10).items()}
    work = shape["tokens"] * shape["hidden"] * shape["width"]
    factor = np.ones(160)
    for width, times in slow.items():
        factor[(shape["width"] == width) & (shape["hidden"] == 2048.0)] = times
    return make_table("moe", shape, (1e-5 + work / 1e12) * factor, software="made")


def test_a_layer_of_its_own_pace_is_found_and_the_others_are_left_alone() -> None:
    shape = layers_of(16, 10)
    odd = (shape["hidden"] == 2048.0) & (shape["width"] == 512.0)
    found = fit_layers("moe", shape, np.where(odd, 0.5, 0.0))
    assert found is not None
    value = found.at(shape)
    # A pull of two rows a node leaves most of it.
    assert np.all(value[odd] > 0.25) and np.all(np.abs(value[~odd]) < 0.01)


def test_layers_that_were_not_measured_have_no_factor() -> None:
    columns, along = LAYERS["moe"]
    keys = np.array([[1024.0, 256.0, 8.0, 64.0, 1.0, 1.0, 1.0]])
    layers = Layers(columns, along, keys, np.array([0.0, 10.0]), np.array([[0.2, 0.4]]))
    shape = dict(zip(columns, keys[0], strict=True))
    assert layers.at({**shape, "tokens": 32.0}) == pytest.approx(0.3)
    assert layers.at({**shape, "hidden": 1000.0, "tokens": 32.0}) == 0.0
    assert layers.at({"tokens": 1.0, **{c: shape[c] for c in columns[:4]}}) == pytest.approx(0.2)


def test_calls_of_many_layers_are_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    shape = layers_of(16, 10)
    found = fit_layers("moe", shape, rng.normal(size=160))
    assert found is not None
    flat = found.at(shape)
    for row in range(0, 160, 7):
        alone = {k: np.broadcast_to(v, 160)[row] for k, v in shape.items()}
        assert found.at(alone) == pytest.approx(flat[row])
    mesh = {**{k: 1.0 for k in ("moe_tp", "ep", "gated")}, "top_k": 8.0, "experts": 64.0,
            "hidden": np.array([1024.0, 2048.0])[:, None], "width": 512.0,
            "tokens": np.array([1.0, 16.0, 100.0])}
    value = found.at(mesh)
    assert value.shape == (2, 3)
    assert value[1, 2] == pytest.approx(
        found.at({**mesh, "hidden": 2048.0, "tokens": 100.0}))
    np.testing.assert_array_equal(found.at(mesh), value)


def test_few_rows_a_layer_or_one_layer_get_no_factors() -> None:
    assert fit_layers("moe", layers_of(16, 7), np.zeros(16 * 7)) is None
    assert fit_layers("moe", layers_of(1, 10), np.zeros(10)) is None
    assert fit_layers("gemm", {"m": np.ones(99)}, np.zeros(99)) is None


def test_held_out_figures_come_back_from_their_short_form() -> None:
    figures = {"rows": 9, "median": 0.1, "p90": 0.2, "bias": -0.01}
    block = {"rows": 4, "fit": [0.1, 0.2, 0.3], "table": [0.4, 0.5], "roofline": [0.6, 0.7]}
    about = {"held_out": figures, "other_versions": {"1.0": figures}, "coverage": 0.9,
             "blocks": {"m 1 to 2": block}}
    assert expanded(json.loads(json.dumps(compact(about)))) == about
    assert expanded(compact({"held_out": {}})) == {"held_out": {}}


def test_tables_of_layers_come_back_from_text() -> None:
    keys = np.unique(np.random.default_rng(1).integers(1, 300, (400, 7)).astype(float), axis=0)
    np.testing.assert_array_equal(decode_keys(encode_keys(keys)), keys)


def test_factors_hold_for_the_kernel_that_was_measured_and_for_no_stand_in() -> None:
    calibration = fit([measured({512.0: 3.0})], H100, engine="sglang")
    shape = {"hidden": 2048.0, "width": 512.0, "top_k": 8.0, "experts": 64.0, "tokens": 32.0}
    (surface,) = calibration.surfaces.values()
    assert surface.layers is not None

    def seconds(found: Calibration, **types: str) -> float:
        return float(found.latency("moe", H100, **{**shape, **types}).seconds)

    own = seconds(calibration)
    assert seconds(calibration.for_engine("sglang")) == own
    others = (seconds(calibration.for_engine("vllm")), seconds(replace(calibration, widening=2.0)),
              seconds(calibration, dtype="int8"))
    assert all(own > 1.05 * other for other in others)


def test_factors_survive_the_file_of_a_calibration(tmp_path: Path) -> None:
    table = measured({512.0: 2.0})
    calibration = fit([table], H100, name="mine")
    back = read_calibration(write_calibration(calibration, tmp_path / "mine.json"))
    (surface,) = back.surfaces.values()
    assert surface.layers is not None
    shape = {k: v for k, v in table.shape.items() if k not in ("touched",)}
    shape |= {"dtype": "bf16", "activation": "bf16"}
    ours, theirs = (c.latency("moe", H100, **shape).seconds for c in (calibration, back))
    np.testing.assert_allclose(theirs, ours, rtol=0.2)
    odd = (shape["hidden"] == 2048.0) & (shape["width"] == 512.0) & (shape["tokens"] < 1024)
    missed = np.log(table.latency_s[odd] / ours[odd])
    assert abs(np.median(missed)) < 0.25
