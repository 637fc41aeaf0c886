"""The calibrations that ship: complete, small, tied to their hardware, and near what they claim."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from costsim import library
from costsim.errors import InputError
from costsim.hardware.loader import list_hardware, load_hardware
from costsim.kernels import store
from costsim.kernels.build_silicon import SYSTEMS, version_key
from costsim.kernels.efficiency import COLLECTIVES
from costsim.kernels.packing import expanded
from costsim.kernels.store import load_calibration, read_calibration, shipped_calibrations
from costsim.validation.kernels import held_out_rows

NAMES = sorted(name for name, _ in SYSTEMS.values())
H100 = load_hardware("h100_sxm")
ATTENTION = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "v_head_dim": 128.0}
SHAPES = {
    "gemm": {"m": 64.0, "n": 4096.0, "k": 4096.0, "dtype": "fp8", "activation": "fp8"},
    "attention_prefill": {"batch": 1.0, "new_tokens": 2048.0, "context": 0.0, **ATTENTION},
    "attention_decode": {"batch": 64.0, "context": 2000.0, **ATTENTION},
    "mla_prefill": {"batch": 1.0, "new_tokens": 2048.0, "context": 0.0, "heads": 16.0,
                    "nope_head_dim": 128.0, "rope_head_dim": 64.0, "v_head_dim": 128.0,
                    "kv_lora_rank": 512.0},
    "mla_decode": {"batch": 64.0, "context": 2000.0, "heads": 16.0, "kv_lora_rank": 512.0,
                   "rope_head_dim": 64.0},
    "linear_attention": {"batch": 8.0, "new_tokens": 1.0, "key_heads": 16.0, "value_heads": 32.0,
                         "key_dim": 128.0, "value_dim": 128.0, "kind": "gated_deltanet"},
    "moe": {"tokens": 64.0, "hidden": 2048.0, "width": 768.0, "top_k": 8.0, "experts": 128.0,
            "moe_tp": 1.0, "ep": 1.0},
    "elementwise": {"bytes": 1e6},
    "point_to_point": {"message_bytes": 1e6},
    **{name: {"ranks": 4.0, "message_bytes": 1e6} for name in COLLECTIVES},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_calibration_is_small_and_tied_to_its_profile(name: str) -> None:
    path = library.find(store.FOLDER, name, (".json",))
    assert path.stat().st_size < 200_000
    calibration = read_calibration(name)
    rates = calibration.about["rates"]
    hardware = load_hardware(calibration.about["hardware"])
    for key, value in rates["peak_flop_per_s"].items():
        assert hardware.peak(key) == pytest.approx(value, rel=1e-9), key
    assert hardware.memory_bandwidth_bytes_per_s == pytest.approx(
        rates["memory_bandwidth_bytes_per_s"], rel=1e-9)
    assert hardware.scale_up.bandwidth_bytes_per_s == pytest.approx(
        rates["scale_up_bytes_per_s"], rel=1e-9)
    assert "aiconfigurator-core" in calibration.about["source"]


@pytest.mark.parametrize("name", NAMES)
def test_rounding_in_the_file_is_small_against_the_error_of_the_fit(name: str) -> None:
    """Values are rounded by half a step at most: that must not become the error."""
    path = library.find(store.FOLDER, name, (".json",))
    for surface in json.loads(path.read_text(encoding="utf-8"))["surfaces"]:
        figures = expanded(surface["about"]).get("held_out")
        if surface["correction"] and figures:
            kernel = (surface["operator"], surface["variant"], surface["engine"])
            assert surface["correction"]["step"] <= 2.5 * max(0.01, figures["median"]), kernel


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_is_positive_finite_and_slower_with_more_work(name: str) -> None:
    calibration = read_calibration(name)
    hardware = load_hardware(calibration.about["hardware"])
    for engine in ("", "vllm", "sglang", "trtllm"):
        view = calibration.for_engine(engine)
        for operator, shape in SHAPES.items():
            latency = view.latency(operator, hardware, **shape)
            assert 1e-7 < float(latency.seconds) < 1.0, (engine, operator)
            assert 0.01 < float(latency.log_error) < 1.5, (engine, operator)
            assert 0 <= float(latency.fixed_s) <= float(latency.seconds)
        few, many = (view.latency("gemm", hardware, m=m, n=8192.0, k=8192.0).seconds
                     for m in (16.0, 8192.0))
        assert many > 5 * few


@pytest.mark.parametrize("name", NAMES)
def test_kernels_stay_below_the_peak_and_the_bandwidth(name: str) -> None:
    calibration = read_calibration(name)
    hardware = load_hardware(calibration.about["hardware"])
    large = calibration.latency("gemm", hardware, m=8192.0, n=8192.0, k=8192.0)
    assert 0.35 < large.flop / large.seconds / hardware.peak("bf16") < 1.05
    decode = calibration.latency("attention_decode", hardware, batch=256.0, context=8192.0,
                                 **ATTENTION)
    share = decode.memory_bytes / decode.seconds / hardware.memory_bandwidth_bytes_per_s
    assert 0.35 < share < 1.05


def test_loading_is_quick() -> None:
    read_calibration("h100_sxm")
    store._read.cache_clear()
    start = time.process_time()
    read_calibration("h100_sxm")
    assert time.process_time() - start < 0.06  # 20 ms on an idle machine; see the benchmark


def test_engines_have_kernels_of_their_own() -> None:
    calibration = load_calibration(H100)
    times = {e: float(calibration.for_engine(e).latency(
        "attention_decode", H100, **SHAPES["attention_decode"]).seconds)
        for e in ("vllm", "sglang", "trtllm")}
    assert len(set(times.values())) == 3
    assert calibration.for_engine("unheard of").latency("gemm", H100, **SHAPES["gemm"])


def test_relatives_lend_their_calibration_and_say_so() -> None:
    borrowers = [h for h in map(load_hardware, list_hardware())
                 if h.borrowed_calibration and h.calibration not in shipped_calibrations()]
    assert borrowers
    shape = {"m": 64.0, "n": 4096.0, "k": 4096.0}
    for hardware in borrowers:
        calibration = load_calibration(hardware)
        assert calibration.provenance.startswith("borrowed from")
        own = read_calibration(hardware.borrowed_calibration)
        ours = calibration.latency("gemm", hardware, **shape).log_error
        theirs = own.latency("gemm", load_hardware(own.about["hardware"]), **shape).log_error
        assert ours == pytest.approx(2.0 * theirs)


def test_hardware_without_any_calibration_gets_the_roofline() -> None:
    bare = H100.with_fields(calibration="", borrowed_calibration="")
    assert load_calibration(bare).provenance == "uncalibrated"


def test_an_unknown_calibration_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="h100_sxm"):
        load_calibration("h100_sxn")


@pytest.mark.parametrize("name", NAMES)
def test_held_out_medians_are_near_their_targets(name: str) -> None:
    """Over an accelerator's kernels the median of each operator stays within its target."""
    rows = held_out_rows(read_calibration(name))
    for operator in ("gemm", "attention_prefill", "attention_decode", "moe", "all_reduce"):
        some = [r for r in rows if r["operator"] == operator]
        assert some
        middle = float(np.median([r["median"] for r in some]))
        # A quarter of slack: some kernels' own scatter is above the target (see docs/kernels.md).
        assert middle <= 1.25 * some[0]["target"][0], (operator, middle)


@pytest.mark.parametrize("name", NAMES)
def test_the_fit_beats_the_roofline_on_held_out_blocks(name: str) -> None:
    pairs = [(b["fit"][0], b["roofline"][0]) for r in held_out_rows(read_calibration(name))
             for b in r["blocks"].values()]
    assert len(pairs) > 20
    assert np.mean([ours < roofline for ours, roofline in pairs]) > 0.9


def test_versions_sort_as_they_were_released() -> None:
    found = ["0.5.14", "0.5.9", "1.3.0rc20", "1.3.0rc5", "0.5.6.post2"]
    assert sorted(found, key=version_key) == [
        "0.5.6.post2", "0.5.9", "0.5.14", "1.3.0rc5", "1.3.0rc20"]


def test_collectives_cost_nothing_alone_and_more_across_nodes() -> None:
    calibration = load_calibration(H100)
    ranks = np.array([1.0, 2.0, 8.0, 16.0, 64.0])
    seconds = calibration.latency("all_reduce", H100, ranks=ranks, message_bytes=64e6).seconds
    assert seconds[0] == 0.0
    assert np.all(np.diff(seconds) > 0)


@pytest.mark.peers
def test_the_shipped_calibration_holds_on_an_engine_profiled_by_others(shared_data: Path) -> None:
    from costsim.kernels.readers.llmservingsim import read_llmservingsim
    from costsim.models.loader import load_model
    from costsim.validation.kernels import validate_kernels

    hardware = load_hardware("rtx_pro_6000")
    tables = read_llmservingsim(shared_data / "serving" / "rtxpro6000-Llama-3.1-8B", 1,
                                load_model("llama-3.1-8b"))
    found = {e.operator: e for e in validate_kernels(tables, load_calibration(hardware), hardware)}
    assert found["gemm"].median < 0.06 and abs(found["gemm"].bias) < 0.03
    assert found["attention_decode"].median < 0.20
    assert found["attention_prefill"].median < 0.30


@pytest.mark.peers
def test_a_profile_is_reproduced_by_its_own_fit(shared_data: Path) -> None:
    from costsim.kernels.readers.llmservingsim import fit_llmservingsim, read_llmservingsim
    from costsim.models.loader import load_model
    from costsim.validation.kernels import validate_kernels

    hardware = load_hardware("rtx_pro_6000")
    folder = shared_data / "serving" / "rtxpro6000-Qwen3-30B-A3B-Instruct-2507"
    model = load_model("qwen3-30b-a3b")
    fitted = fit_llmservingsim(folder, 1, model, hardware, load_calibration(hardware))
    tables = read_llmservingsim(folder, 1, model)
    limits = {"gemm": 0.03, "attention_prefill": 0.05, "attention_decode": 0.03, "moe": 0.03,
              "elementwise": 0.12}
    for errors in validate_kernels(tables, fitted, hardware):
        assert errors.median < limits[errors.operator], errors.operator
    assert ("all_reduce", "", "vllm") in fitted.surfaces


@pytest.mark.peers
def test_vidur_tables_are_read_and_agree_where_kernels_are_long(shared_data: Path) -> None:
    from costsim.kernels.readers.vidur import read_vidur_all_reduce, read_vidur_mlp
    from costsim.validation.kernels import validate_kernels

    hardware = load_hardware("a100_sxm_80gb")
    gemm, _ = read_vidur_mlp(shared_data / "kernels" / "vidur_a100_llama-2-70b_mlp.csv")
    (reduce,) = read_vidur_all_reduce(shared_data / "kernels" / "vidur_a100_dgx_all_reduce.csv")
    calibration = load_calibration(hardware)
    (errors,) = validate_kernels([gemm], calibration, hardware)
    assert errors.median < 0.2
    large = reduce.select(np.flatnonzero(
        (reduce.shape["message_bytes"] > 3e7) & (reduce.shape["ranks"] <= 8)))
    (errors,) = validate_kernels([large], calibration, hardware)
    assert errors.median < 0.35


def test_silicon_tables_are_read_with_units_and_shapes(silicon: Path) -> None:
    from costsim.kernels.plausible import check_on
    from costsim.kernels.readers.silicon import read_silicon

    tables = read_silicon("a100_sxm")
    assert {t.operator for t in tables} >= {"gemm", "attention_decode", "moe", "all_reduce"}
    hardware = load_hardware("a100_sxm_80gb")
    refused = []
    for table in tables:
        if table.operator in ("gemm", "attention_decode", "attention_prefill"):
            try:
                check_on(table, hardware)
            except InputError as error:
                refused.append((table.operator, table.software))
                assert "times the bandwidth" in str(error)
    # These rows read their cache at up to 1.7 times the memory's bandwidth; the build drops them.
    assert refused == [("attention_decode", "trtllm")]


def test_expert_loads_add_up() -> None:
    from costsim.kernels.readers.routing import balanced_load, power_law_load

    assert balanced_load(64, 8, 128, 4) == (32.0, 1.0)
    assert balanced_load(1, 8, 256, 32) == (1.0, 4.0)
    touched, load = power_law_load(4096, 8, 128, 8, 1.2)
    assert 1 <= touched <= 16 and 1.0 < load < 8.0
    alone, whole = power_law_load(256, 8, 128, 1, 1.01)
    assert whole == pytest.approx(1.0, rel=0.02) and alone <= 128


def test_pcie_machines_differ_more_than_the_table_of_one_of_them() -> None:
    """Four cards without peer access reach 4 GB/s, with it 26 (sources stand in the profile)."""
    l40s, calibration = load_hardware("l40s"), load_calibration("l40s")
    message = 64e6
    found = calibration.latency("all_reduce", l40s, ranks=4, message_bytes=message)
    wire = 2 * 3 / 4 * message
    assert wire / (found.seconds * np.exp(-1.645 * found.log_error)) > 12e9
    h100 = load_hardware("h100_sxm")
    one_make = load_calibration("h100_sxm").latency("all_reduce", h100, ranks=4,
                                                    message_bytes=message)
    assert h100.scale_up.machine_spread == 0 and one_make.log_error < 0.3
