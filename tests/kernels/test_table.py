"""Kernel tables: reading, writing, and the mistakes that reading catches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.kernels.plausible import check_on
from costsim.kernels.surface_fit import kernels
from costsim.kernels.table import (
    KernelTable,
    check_table,
    make_table,
    merge_duplicates,
    read_csv,
    write_csv,
)

H100 = load_hardware("h100_sxm")


def gemm_table(scale: float = 1.0) -> KernelTable:
    m = np.array([64.0, 4096.0, 8192.0])
    seconds = 2 * m * 8192 * 8192 / (0.7 * 989e12) + 40e-6
    return make_table("gemm", {"m": m, "n": 8192.0, "k": 8192.0}, seconds * scale,
                      device="H100", software="vllm", version="1", source="made up",
                      date="2026-01-01")


def test_a_table_survives_writing_and_reading(tmp_path: Path) -> None:
    other = make_table("all_reduce", {"ranks": [2.0, 8.0], "message_bytes": 1e6}, [1e-5, 2e-5])
    first, second = read_csv(write_csv(tmp_path / "t.csv", [gemm_table(), other]))
    assert first.operator == "gemm" and first.version == "1" and second.operator == "all_reduce"
    np.testing.assert_allclose(first.latency_s, gemm_table().latency_s, rtol=1e-5)
    np.testing.assert_array_equal(first.shape["dtype"], ["bf16"] * 3)
    np.testing.assert_array_equal(second.shape["ranks"], [2.0, 8.0])


def test_true_rows_pass_the_check() -> None:
    check_on(gemm_table(), H100)


def test_milliseconds_for_seconds_are_caught() -> None:
    with pytest.raises(InputError, match="times the peak rate of h100_sxm"):
        check_on(gemm_table(scale=1e-3), H100)


def test_impossible_bandwidth_is_caught() -> None:
    table = make_table("attention_decode", {
        "batch": [256.0, 512.0], "context": 65536.0, "heads": 8.0, "kv_heads": 8.0,
        "head_dim": 128.0, "v_head_dim": 128.0}, [5e-3, 1e-2])
    with pytest.raises(InputError, match="times the bandwidth"):
        check_on(table, H100)


def test_repeated_rows_are_caught_and_can_be_merged() -> None:
    table = make_table("gemm", {"m": [1.0, 1.0, 1.0, 2.0], "n": 8.0, "k": 8.0},
                       [1e-6, 3e-6, 2e-6, 5e-6])
    with pytest.raises(InputError, match="2 duplicate rows"):
        check_table(table)
    merged = merge_duplicates(table)
    np.testing.assert_allclose(sorted(merged.latency_s), [2e-6, 5e-6])
    assert np.nanmax(merged.spread) == pytest.approx(0.5)


@pytest.mark.parametrize("latency", [0.0, -1e-6, np.nan, np.inf])
def test_latencies_that_cannot_be_are_caught(latency: float) -> None:
    table = make_table("elementwise", {"bytes": [1e6, 2e6]}, [1e-5, latency])
    with pytest.raises(InputError, match="row 2"):
        check_table(table)


@pytest.mark.parametrize(("text", "message"), [
    ("operator,latency_s,m,n\ngemm,1e-6,1,2\n", "column 'k' is missing"),
    ("operator,latency_s,m,n,k\ngemm,fast,1,2,3\n", "'fast' is not a number"),
    ("operator,latency_s,m,n,q\ngemm,1,1,2,3\n", "unknown column"),
    ("operator,latency_s\nconvolution,1\n", "unknown operator"),
    ("a,b\n1,2\n", "no columns 'operator'"),
])
def test_malformed_files_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(path)
    assert "\n" not in str(caught.value)


def test_rows_are_split_into_kernels_by_data_type() -> None:
    table = make_table("gemm", {"m": [1.0, 2.0, 3.0], "n": 8.0, "k": 8.0,
                                "dtype": ["bf16", "fp8", "fp16"],
                                "activation": ["bf16", "fp8", "fp16"]}, [1e-6, 2e-6, 3e-6])
    assert sorted(k.variant for k in kernels(table)) == ["bf16:bf16", "bf16:bf16", "fp8:fp8"]
