"""The fit: what it recovers, how it extrapolates, what its interval holds, what it notices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.correction import FADE_OCTAVES, Correction
from costsim.kernels.correction_fit import fit_correction
from costsim.kernels.efficiency import Efficiency, roofline_latency
from costsim.kernels.filling import filled
from costsim.kernels.fit import fit
from costsim.kernels.holdout import hold_out, table_lookup
from costsim.kernels.operators import operator_work, work_on
from costsim.kernels.packing import decode, encode
from costsim.kernels.store import read_calibration, write_calibration
from costsim.kernels.surface_fit import NINETY, enough_for, fit_surface, kernels, log_errors
from costsim.kernels.table import KernelTable, make_table
from costsim.validation.kernels import validate_kernels

H100 = load_hardware("h100_sxm")
TRUE = Efficiency(0.8, 0.9, 2e6, 4e-6, 3.0)


def made_gemms(
    noise: float = 0.02, slow: float = 1.0, seed: int = 0, shift: float = 1.0
) -> KernelTable:
    """GEMMs of a machine whose efficiencies are known, with noise."""
    rng = np.random.default_rng(seed)
    m, n, k = (x.ravel() for x in np.meshgrid(
        np.ceil(shift * 2.0 ** np.arange(0, 14)), 2.0 ** np.arange(8, 15), 2.0 ** np.arange(8, 15)))
    shape = {"m": m, "n": n, "k": k}
    work = operator_work("gemm", shape)
    seconds = roofline_latency(work, H100.peak("bf16"), H100.memory_bandwidth_bytes_per_s,
                               H100.compute_units, TRUE).seconds
    return make_table("gemm", shape, seconds * slow * np.exp(noise * rng.normal(size=len(m))),
                      software="made")


def test_the_physics_recovers_the_parameters_it_was_made_with() -> None:
    (kernel,) = kernels(made_gemms(noise=0.01))
    found = fit_surface(kernel, H100).efficiency
    assert found.compute == pytest.approx(TRUE.compute, rel=0.03)
    assert found.memory == pytest.approx(TRUE.memory, rel=0.05)
    assert found.launch_s == pytest.approx(TRUE.launch_s, rel=0.05)


def test_the_interval_holds_nine_in_ten_rows_not_seen() -> None:
    calibration = fit([made_gemms(0.05)], H100)
    (unseen,) = validate_kernels([made_gemms(0.05, seed=1, shift=0.8)], calibration, H100)
    assert 0.85 <= unseen.coverage <= 0.95
    assert abs(unseen.bias) < 0.02


def test_a_device_at_half_its_rate_is_noticed() -> None:
    calibration = fit([made_gemms()], H100)
    (fine,) = validate_kernels([made_gemms(seed=3)], calibration, H100)
    (slow,) = validate_kernels([made_gemms(slow=2.0)], calibration, H100)
    assert fine.suspicion == "" and fine.passed
    assert "2 times" in slow.suspicion and not slow.passed
    assert slow.bias == pytest.approx(1.0, abs=0.1)


def test_outliers_do_not_move_the_fit() -> None:
    table = made_gemms(0.01)
    table.latency_s[::20] *= 30.0
    (kernel,) = kernels(table)
    clean = np.ones(len(table), bool)
    clean[::20] = False
    errors = log_errors(fit_surface(kernel, H100), kernel, H100)[clean]
    assert np.median(np.abs(errors)) < 0.03


def test_held_out_blocks_beat_table_and_roofline_on_known_physics() -> None:
    (kernel,) = kernels(made_gemms(0.02))
    blocks = hold_out(kernel, H100, 0.05)
    assert len(blocks) == 2
    for block in blocks:
        ours, table, roofline = (np.median(np.abs(e)) for e in
                                 (block.fit, block.table, block.roofline))
        assert ours < table and ours < roofline


def test_table_lookup_interpolates_and_extends_power_laws_exactly() -> None:
    m = 2.0 ** np.arange(10)
    table = make_table("gemm", {"m": m, "n": 64.0, "k": 64.0}, 1e-6 * m**0.7)
    (kernel,) = kernels(table)
    held = kernel.select(np.array([0, 5, 9]))
    kept = kernel.select(np.array([1, 2, 3, 4, 6, 7, 8]))
    np.testing.assert_allclose(table_lookup(kept, held, "m"), held.latency_s, rtol=1e-9)


def test_a_correction_fades_to_the_physics_outside_its_grid() -> None:
    grid = Correction((np.array([0.0, 1.0, 2.0]),), np.array([0.1, 0.2, 0.3]))
    value, outside = grid.at((np.array([0.5, 2.0, 2.0 + FADE_OCTAVES, 90.0]),))
    np.testing.assert_allclose(value[:2], [0.15, 0.3])
    assert value[2] == pytest.approx(0.3 / np.e)
    assert abs(value[3]) < 1e-5
    np.testing.assert_allclose(outside, [0.0, 0.0, FADE_OCTAVES, 88.0])


def test_interpolation_is_the_same_for_open_meshes_and_flat_points() -> None:
    rng = np.random.default_rng(0)
    axes = (np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 5.0, 6.0]), np.array([1.0]))
    grid = Correction(axes, rng.normal(size=(3, 4, 1)))
    x, y = rng.uniform(-1, 4, (7, 1)), rng.uniform(-1, 7, (1, 5))
    mesh = grid.at((x, y, 1.0))[0]
    flat = grid.at(tuple(a.ravel() for a in np.broadcast_arrays(x, y, np.ones((7, 5)))))[0]
    np.testing.assert_allclose(mesh.ravel(), flat, atol=1e-12)
    single = grid.at((x[3, 0], y[0, 2], 1.0))[0]
    assert single == pytest.approx(mesh[3, 2])


def test_a_fitted_grid_finds_a_smooth_residual() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 8, 3000), rng.uniform(0, 8, 3000)
    truth = 0.2 * np.sin(x / 2) + 0.05 * y
    grid = fit_correction((x, y), truth + 0.01 * rng.normal(size=3000), (12, 6))
    assert np.median(np.abs(grid.at((x, y))[0] - truth)) < 0.01


def test_nodes_without_measurements_take_lines_between_their_neighbours() -> None:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(9.0), np.arange(9.0)))
    truth = 0.3 * x - 0.2 * y
    measured = (x % 2 == 0) | (y % 2 == 0)
    whole = fit_correction((x, y), truth, (9, 9), pull=1e-4)
    part = fit_correction((x[measured], y[measured]), truth[measured], (9, 9), pull=1e-4)
    np.testing.assert_allclose(part.at((x, y))[0], whole.at((x, y))[0], atol=0.02)


def test_a_contrast_that_was_measured_nowhere_near_is_none() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 3.0]), np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    grid = fit_correction((x, y), np.array([0.1, 0.2, 0.3, 0.4, 0.5]), (4, 2), pull=1e-4,
                          stiffness=1e-3)
    np.testing.assert_allclose(grid.grid[:3, 1], grid.grid[:3, 0])
    np.testing.assert_allclose(grid.grid[3], [0.4, 0.5], atol=0.01)


def test_a_contrast_measured_on_both_sides_holds_between_them() -> None:
    values = np.array([[0.1, 0.5], [0.2, np.nan], [0.3, 0.7]])
    np.testing.assert_allclose(filled(values)[1, 1], 0.6)


def test_beyond_the_measured_corner_the_nearest_value_on_the_first_axis_is_kept() -> None:
    values = np.full((4, 3), np.nan)
    values[:, 0], values[0] = [0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.5]
    np.testing.assert_allclose(filled(values)[3], [0.4, 0.3, 0.5])
    np.testing.assert_allclose(filled(np.full((2, 3), np.nan)), 0.0)


@pytest.mark.parametrize("unskipped", [0.02, 0.5, 1.0])
def test_the_fit_finds_how_much_of_a_window_a_kernel_skips(unskipped: float) -> None:
    batch, new, window = (a.ravel() for a in np.meshgrid(
        2.0 ** np.arange(5), 2.0 ** np.arange(8, 15), [128.0, 1024.0]))
    shape: dict[str, Any] = {
        "batch": batch, "new_tokens": new, "context": 0.0 * new, "heads": 32.0 + 0 * new,
        "kv_heads": 8.0 + 0 * new, "head_dim": 128.0 + 0 * new, "v_head_dim": 128.0 + 0 * new,
        "window": window}
    seconds = roofline_latency(
        work_on("attention_prefill", shape, "gpu", Efficiency(unskipped=unskipped)),
        H100.peak("bf16"),
        H100.memory_bandwidth_bytes_per_s, H100.compute_units, TRUE).seconds
    (kernel,) = (k for k in kernels(make_table("attention_prefill", shape, seconds))
                 if k.variant.endswith("/window"))
    assert fit_surface(kernel, H100).efficiency.unskipped == pytest.approx(unskipped, rel=0.3)


@pytest.mark.parametrize("masked", [0.05, 1.0])
def test_the_fit_finds_how_much_of_the_causal_mask_a_processor_computes(masked: float) -> None:
    batch, new, context = (a.ravel() for a in np.meshgrid(
        2.0 ** np.arange(4), 2.0 ** np.arange(6, 12), [0.0, 512.0]))
    shape: dict[str, Any] = {
        "batch": batch, "new_tokens": new, "context": context, "heads": 16.0 + 0 * new,
        "kv_heads": 8.0 + 0 * new, "head_dim": 64.0 + 0 * new, "v_head_dim": 64.0 + 0 * new}
    hidden = new * (new - 1.0) / 2.0
    pairs = new * context + new * (new + 1.0) / 2.0 + masked * hidden
    seconds = 4.0 * batch * 16.0 * 64.0 * pairs / 1e11
    cpu = replace(H100, kind="cpu").with_fields(peak_flop_per_s={"bf16": 2e11, "fp32": 2e11})
    (kernel,) = kernels(make_table("attention_prefill", shape, seconds))
    found = fit_surface(kernel, cpu).efficiency
    assert found.masked == pytest.approx(masked, rel=0.3)
    none = {**{k: v[0] for k, v in kernel.shape.items() if isinstance(v, np.ndarray)},
            "new_tokens": np.array([0.0, 64.0]), "context": 0.0}
    work = work_on("attention_prefill", none, "cpu", found)
    assert work.padded_flop[0] == 0.0 and work.padded_flop[1] > work.flop[1]


@pytest.mark.parametrize(("padding", "tile"), [(0.0, 128.0), (0.4, 128.0), (1.0, 64.0)])
def test_a_gap_in_the_measured_rows_is_bridged_by_the_padding_that_was_found(
    padding: float, tile: float
) -> None:
    """What m = 129 costs follows from what 513 and 1025 cost."""
    sizes = [1, 16, 64, 96, 97, 128, 129, 160, 192, 256, 257, 512, 513, 768, 769, 1024, 1025, 4096]
    m, n, k = (x.ravel() for x in np.meshgrid(
        np.array(sizes, float), 2.0 ** np.arange(9, 14), 2.0 ** np.arange(9, 14)))
    true = replace(TRUE, tile_rows=tile, padding=padding)
    shape = {"m": m, "n": n, "k": k}
    seconds = roofline_latency(work_on("gemm", shape, "gpu", true), H100.peak("bf16"),
                               H100.memory_bandwidth_bytes_per_s, H100.compute_units, true).seconds
    (kernel,) = kernels(make_table("gemm", shape, seconds))
    block = next(b for b in hold_out(kernel, H100, 0.05) if b.block == "m 100 to 400")
    assert np.median(np.abs(block.fit)) < 0.02
    assert np.median(np.abs(block.fit)) < np.median(np.abs(block.table))


def test_enough_error_for_few_rows_is_that_of_the_largest() -> None:
    errors = np.array([0.1, -0.2, 0.3])
    assert enough_for(errors) == pytest.approx(0.3 / NINETY)
    many = np.random.default_rng(0).normal(size=100_000)
    assert enough_for(many) == pytest.approx(1.0, rel=0.02)


def test_packed_grids_come_back_to_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    grid = Correction((np.arange(5.0), np.arange(4.0)), rng.normal(size=(5, 4)))
    packed = encode(grid)
    np.testing.assert_allclose(decode(packed).values, grid.values, atol=packed["step"] / 2 + 1e-9)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    calibration = fit([made_gemms()], H100, name="mine")
    back = read_calibration(write_calibration(calibration, tmp_path / "mine.json"))
    shape = {"m": np.array([1.0, 300.0, 5000.0]), "n": 4096.0, "k": 4096.0}
    np.testing.assert_allclose(back.latency("gemm", H100, **shape).seconds,
                               calibration.latency("gemm", H100, **shape).seconds, rtol=0.02)
    assert back.about["rates"]["peak_flop_per_s"]["bf16"] == H100.peak("bf16")


def test_what_ifs_scale_what_they_should() -> None:
    calibration = fit([made_gemms()], H100)
    faster = H100.with_fields(memory_bandwidth_bytes_per_s=2 * H100.memory_bandwidth_bytes_per_s)
    small = {"m": 1.0, "n": 16384.0, "k": 16384.0}
    before = calibration.latency("gemm", H100, **small).seconds
    after = calibration.latency("gemm", faster, **small).seconds
    assert 0.45 < after / before < 0.6
    large = {"m": 8192.0, "n": 16384.0, "k": 16384.0}
    assert calibration.latency("gemm", faster, **large).seconds == pytest.approx(
        calibration.latency("gemm", H100, **large).seconds, rel=0.02)


def test_without_measurements_the_roofline_says_how_little_it_knows() -> None:
    latency = Calibration.roofline().latency("gemm", H100, m=1.0, n=4096.0, k=4096.0)
    assert latency.log_error >= 0.3


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_one_row_is_a_kernel_of_its_own_on_a_processor(kind: str) -> None:
    """A matrix streams through a dot product at one speed and is packed into panels at another."""
    hardware = replace(H100, kind=kind)
    table = made_gemms(noise=0.01)
    slow = np.where(table.shape["m"] > 1, 2.5, 1.0)
    table = replace(table, latency_s=table.latency_s * slow)
    calibration = fit([table], hardware)
    assert len(calibration.surfaces) == (2 if kind == "cpu" else 1)
    if kind == "gpu":
        return
    # Between the measured sizes, in one call with both kinds of rows.
    rows = np.array([[1.0], [2.0], [4.0]])
    shape = {"m": rows, "n": np.array([700.0, 3000.0]), "k": 1500.0}
    work = operator_work("gemm", shape)
    true = roofline_latency(work, H100.peak("bf16"), H100.memory_bandwidth_bytes_per_s,
                            H100.compute_units, TRUE).seconds * np.where(rows > 1, 2.5, 1.0)
    found = calibration.latency("gemm", hardware, dtype="bf16", activation="bf16", **shape)
    assert np.abs(np.log(found.seconds / true)).max() < 0.25
    assert found.seconds.shape == found.compute_s.shape == (3, 2)
