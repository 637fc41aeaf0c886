"""AITER's tuned-kernel tables: rows read, what is left out, and the calibrations made from them.

The rows stand in ROCm/aiter @e4048607 (MIT); those that are altered say so.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costsim import library
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.kernels import build_aiter, store
from costsim.kernels.build_aiter import build, published, put_right
from costsim.kernels.calibrate import calibrate
from costsim.kernels.readers.aiter import aiter_files, kind_of, read_aiter
from costsim.kernels.sources import read_source
from costsim.kernels.store import load_calibration, read_calibration
from costsim.kernels.surface_fit import kernels, log_errors
from costsim.validation.kernels import held_out_rows

MI300X, MI325X, MI355X = (load_hardware(n) for n in ("mi300x", "mi325x", "mi355x"))

BLOCKSCALE = """\
gfx,cu_num,M,N,K,libtype,kernelId,splitK,us,kernelName,tflops,bw,errRatio
gfx942,304,1,3072,1536,ck,8,0,6.6154,k,1.43,714.43,0.0
gfx942,304,512,7168,2304,ck,0,0,27.2065,k,621.6,920.18,0.0
gfx942,304,32768,512,7168,ck,0,0,363.4847,k,661.7,748.6,0.0
gfx950,256,16,256,4096,ck,0,0,11.6965,k,0.18,100.0,0.0
"""
# The same shape again: slower, failed, wrong, of a kernel without a time, of another device.
SPOILED = """\
gfx,cu_num,M,N,K,libtype,kernelId,splitK,us,kernelName,tflops,bw,errRatio
gfx942,304,512,7168,2304,ck,0,0,30.0,k,563.71,0,0.0
gfx942,304,64,7168,2304,ck,0,0,-1,k,0,0,1.0
gfx942,304,64,7168,2304,ck,0,0,0.0,k,0,0,0.0
gfx942,304,64,7168,2304,ck,0,0,inf,k,0,0,0.0
gfx942,304,64,7168,2304,ck,0,0,,k,0,0,0.0
gfx942,304,64,7168,2304,ck,0,0,20.0,k,105.70,0,0.3
gfx942,80,64,7168,2304,ck,0,0,25.0,k,84.56,0,0.0
gfx1250,256,64,7168,2304,ck,0,0,5.0,k,422.79,0,0.0
"""
BF16 = """\
gfx,cu_num,M,N,K,bias,dtype,outdtype,scaleAB,bpreshuffle,libtype,solidx,splitK,us,kernelName,err_ratio,tflops,bw
gfx950,256,512,8192,8192,False,torch.bfloat16,torch.bfloat16,False,False,hipblaslt,1,0,80.0,k,0.0,858.99,0
"""
PER_TOKEN = """\
gfx,cu_num,M,N,K,q_dtype_w,libtype,kernelId,splitK,us,kernelName,tflops,bw,errRatio
gfx942,304,64,1536,5120,torch.int8,asm,0,1,16.7759,k,60.0,500.04,0.0
gfx942,304,64,1536,5120,torch.float8_e4m3fnuz,cktile,2,0,8.4858,k,118.63,988.55,0.0
"""
_MOE = ("cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,"
        "use_g1u1,doweight_stage1,block_m,ksplit,us1,kernelName1,err1,us2,kernelName2,err2,us,"
        "run_1stage,tflops,bw,_tag\n")
# 4096 tokens is the time of 1024 again, with the rate of those.
EXPERTS = _MOE + "".join(
    f"{units},{tokens},4096,384,128,8,ActivationType.Silu,torch.bfloat16,torch.{a},torch.{w},"
    f"QuantType.{quant},1,0,64,0,{us},k,0%,0.0,k,0%,{us},1,{rate},0,\n"
    for units, tokens, a, w, quant, us, rate in (
        (256, 1024, "float8_e4m3fn", "float8_e4m3fn", "per_1x128", 600.1, 128.82),
        (256, 4096, "float8_e4m3fn", "float8_e4m3fn", "per_1x128", 600.1, 128.82),
        (256, 64, "bfloat16", "bfloat16", "No", 230.0, 21.01),
        (256, 64, "bfloat16", "float4_e2m1fn_x2", "per_1x32", 130.0, 37.17),
        (256, 64, "float8_e4m3fn", "float8_e4m3fn", "per_1x32", 230.0, 21.01)))
DELTA = """\
arch,dtype,state_dtype,b,sq,num_k_heads,num_v_heads,head_k_dim,head_v_dim,NUM_WARPS,duration
gfx942,torch.bfloat16,torch.float32,1,1,4,8,128,128,4,5.4
gfx950,torch.bfloat16,torch.bfloat16,1,1,4,8,128,128,4,4.679
gfx950,torch.bfloat16,torch.float32,1,1,4,8,128,128,4,5.0
"""


def checkout(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "aiter" / "configs" / "model_configs" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def rows(folder: Path, hardware: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return each kernel's columns, its times in µs among them."""
    found = {}
    for table in read_aiter(aiter_files(folder), hardware):
        name = str(table.shape.get("dtype", table.shape.get("kind"))[0])
        found[table.operator, name] = {
            **table.shape, "us": (table.latency_s * 1e6).round(4).tolist()}
    return found


def test_the_fastest_right_row_of_the_device_counts(tmp_path: Path) -> None:
    folder = checkout(tmp_path, a8w8_blockscale_tuned_gemm_x=BLOCKSCALE,
                      a8w8_blockscale_tuned_gemm_y=SPOILED)
    found = rows(folder, MI300X)
    assert list(found) == [("gemm", "fp8_block")]
    gemm = found["gemm", "fp8_block"]
    assert dict(zip(gemm["m"].tolist(), gemm["us"], strict=True)) == {
        1.0: 6.6154, 512.0: 27.2065, 32768.0: 363.4847}
    assert set(gemm["activation"]) == {"fp8"}


def test_types_come_from_the_rows_or_from_the_name_of_the_file(tmp_path: Path) -> None:
    folder = checkout(tmp_path, llama70B_bf16_tuned_gemm=BF16,
                      a4w4_blockscale_tuned_gemm=BLOCKSCALE.replace("0.18", "2.87"),
                      a8w8_bpreshuffle_tuned_gemm=PER_TOKEN)
    assert set(rows(folder, MI355X)) == {("gemm", "bf16"), ("gemm", "mxfp4")}
    found = rows(folder, MI300X)
    assert found["gemm", "int8"]["us"] == [16.7759] and found["gemm", "fp8"]["us"] == [8.4858]


def test_experts_whose_time_was_copied_or_whose_type_is_unknown_are_left_out(
    tmp_path: Path,
) -> None:
    found = rows(checkout(tmp_path, x_tuned_fmoe=EXPERTS), MI355X)
    assert {name: kernel["us"] for (_, name), kernel in found.items()} == {
        "fp8_block": [600.1], "bf16": [230.0], "mxfp4": [130.0]}
    assert set(found["moe", "mxfp4"]["activation"]) == {"bf16"}
    assert found["moe", "bf16"]["top_k"] == 8 and found["moe", "bf16"]["width"] == 384


def test_recurrences_keep_their_state_in_fp32_and_name_their_device(tmp_path: Path) -> None:
    folder = checkout(tmp_path, gdr_decode_tuned=DELTA)
    assert rows(folder, MI355X)["linear_attention", "gated_deltanet"]["us"] == [5.0]
    with pytest.raises(InputError, match="no row of mi300x"):
        read_aiter(aiter_files(folder), MI300X)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("6.6154", "6615.4", "microseconds"), ("27.2065", "fast", "'fast' is not a number")])
def test_mistakes_are_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = BLOCKSCALE.replace(old, new)
    if message == "microseconds":  # Nanoseconds throughout.
        text = text.replace("27.2065", "27206.5").replace("363.4847", "363484.7")
    folder = checkout(tmp_path, a8w8_blockscale_tuned_gemm=text)
    with pytest.raises(InputError, match=message):
        read_source(folder, MI300X)


def test_files_are_told_by_their_columns() -> None:
    assert kind_of(BLOCKSCALE.split("\n", 1)[0]) == "gemm"
    assert kind_of(EXPERTS.split("\n", 1)[0]) == "moe"
    assert kind_of("cu_num,B,M,N,K,us") == "" and kind_of("operator,m,n,k,latency_s") == ""


def grid(units: int = 304, gfx: str = "gfx942") -> str:
    """A table made for the tests: 40 % of the peak or 60 % of the bandwidth, and 4 µs."""
    lines = [BLOCKSCALE.split("\n", 1)[0]]
    for m in (2**i for i in range(17)):
        for n, k in ((4096, 4096), (8192, 2048), (2048, 8192)):
            moved = m * k + n * k + 2 * m * n
            us = 4.0 + max(2e6 * m * n * k / (0.4 * 2614.9e12), 1e6 * moved / (0.6 * 5.3e12))
            lines.append(f"{gfx},{units},{m},{n},{k},ck,0,0,{us:.4f},k,"
                         f"{2e-6 * m * n * k / us:.2f},0,0.0")
    return "\n".join(lines) + "\n"


def test_a_row_faster_than_the_device_is_left_out_and_many_are_refused(tmp_path: Path) -> None:
    glitch = "gfx942,304,64,7168,2304,ck,0,0,0.01,k,211392.92,0,0.0\n"
    few = checkout(tmp_path / "few", a8w8_blockscale_tuned_gemm=grid() + glitch)
    table, = read_source(few, MI300X)
    assert len(table) == len(grid().splitlines()) - 1
    many = checkout(tmp_path / "many", a8w8_blockscale_tuned_gemm=BLOCKSCALE + glitch)
    with pytest.raises(InputError, match="times the peak rate of mi300x"):
        read_source(many, MI300X)


def test_calibrate_fits_a_checkout_and_borrows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path / "home"))
    folder = checkout(tmp_path / "aiter", a8w8_blockscale_tuned_gemm=grid())
    calibrate(source=folder, hardware="mi300x", name="mine")
    mine = load_calibration("mine")
    assert mine.provenance.endswith("the rest from mi300x")
    shape: dict[str, Any] = {"m": 2048.0, "n": 4096.0, "k": 4096.0, "dtype": "fp8_block",
                             "activation": "fp8"}
    flop = 2.0 * 2048 * 4096 * 4096
    seconds = float(mine.latency("gemm", MI300X, **shape).seconds)
    assert seconds == pytest.approx(4e-6 + flop / (0.4 * 2614.9e12), rel=0.1)
    assert mine.surface("all_reduce") == load_calibration(MI300X).surface("all_reduce")
    # What the accelerator's own calibration measured comes before a stand-in of one's own.
    assert mine.surface("gemm", "fp8:fp8") == load_calibration(MI300X).surface("gemm", "fp8:fp8")
    with pytest.raises(InputError, match="no row of h100_sxm"):
        calibrate(source=folder, hardware="h100_sxm", name="other")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_build_reads_the_present_and_the_named_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(clone), *words], check=True, text=True,
                              capture_output=True).stdout.strip()

    clone = checkout(tmp_path / "clone", a8w8_blockscale_tuned_gemm=grid())
    old = clone / "aiter" / "configs" / "a8w8_bpreshuffle_tuned_gemm.csv"
    old.write_text(grid(), encoding="utf-8")
    # Decodes alone do not tell what a prefill reaches.
    checkout(clone, x_a4w4_tuned_gemm="".join(
        line for line in grid().splitlines(True) if not line.startswith("gfx942") or
        int(line.split(",")[2]) <= 16))
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    git("init", "-q")
    git("add", ".")
    git(*who, "commit", "-qm", "old")
    commit = git("rev-parse", "HEAD")
    git("rm", "-q", str(old.relative_to(clone)))
    git(*who, "commit", "-qm", "new")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[others_from]\nmi300x = "h100_sxm"\n[[older]]\ncommit = "{commit}"\n'
                      f'files = ["{old.relative_to(clone)}"]\n', encoding="utf-8")
    monkeypatch.setattr(build_aiter, "RECIPE", recipe)
    found = build("mi300x", clone)
    assert {key[:2] for key in found.surfaces} == {
        ("gemm", "fp8_block:fp8"), ("gemm", "fp8:fp8"), ("gemm", "bf16:bf16"),
        ("attention_prefill", "bf16:bf16"), ("all_reduce", "")}
    assert found.about["left_out"] == ["gemm mxfp4:mxfp4 aiter"]
    assert git("rev-parse", "HEAD")[:8] in found.about["source"]
    assert commit[:8] in found.about["source"]
    with pytest.raises(InputError, match="not a clone of ROCm/aiter"):
        build("mi300x", checkout(tmp_path / "plain", a8w8_blockscale_tuned_gemm=grid()))
    with pytest.raises(InputError, match="mi300x"):
        build("mi301x", clone)


@pytest.mark.parametrize("name", ["mi300x", "mi355x"])
def test_shipped_calibrations_hold_on_rows_they_did_not_see(name: str) -> None:
    assert library.find(store.FOLDER, name, (".json",)).stat().st_size < 200_000
    calibration = read_calibration(name)
    hardware = load_hardware(name)
    rates = calibration.about["rates"]
    assert hardware.memory_bandwidth_bytes_per_s == pytest.approx(
        rates["memory_bandwidth_bytes_per_s"])
    assert "ROCm/aiter (MIT) @" in calibration.about["source"]
    found = held_out_rows(calibration)
    for operator, median in (("gemm", 0.04), ("moe", 0.08)):
        middle = np.median([r["median"] for r in found if r["operator"] == operator])
        assert middle <= 1.25 * median, operator
    pairs = [(b["fit"][0], b["roofline"][0]) for r in found for b in r["blocks"].values()]
    assert np.mean([ours < roofline for ours, roofline in pairs]) > 0.9


def test_what_was_not_measured_is_borrowed_with_a_wider_error() -> None:
    ours, theirs = load_calibration(MI300X), load_calibration("h100_sxm")
    assert "the rest borrowed from h100_sxm" in ours.provenance
    shape = {"batch": 64.0, "context": 2000.0, "heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0,
             "v_head_dim": 128.0}
    lent = theirs.for_engine("vllm").latency("attention_decode", MI300X, **shape)
    here = ours.for_engine("vllm").latency("attention_decode", MI300X, **shape)
    assert float(here.seconds) == float(lent.seconds)
    # Another vendor's kernels: twice the error, and what those measured on both are apart.
    assert float(here.log_error) == pytest.approx(np.hypot(2.0 * float(lent.log_error), 0.4))
    # A kernel at another rate is further away than the relative's own.
    assert ours.surface("moe", "mxfp4:mxfp4")[0] == theirs.surface("moe", "mxfp4:mxfp4")[0]
    stand_in = ours.surface("moe", "int4:bf16")[0]
    assert stand_in == replace(ours.surface("moe", "bf16:bf16")[0], layers=None)
    # A relative of a relative is no less sure of what both borrow.
    third = load_calibration(MI325X)
    assert third.provenance.startswith("borrowed from mi300x")
    assert third.surface("attention_decode", "bf16") == ours.surface("attention_decode", "bf16")


def test_few_rows_put_a_relative_right_where_arithmetic_limits() -> None:
    """Their share of the peak counts; what they cannot tell stays the relative's."""
    kernel, = (k for t in published(MI300X) if t.operator == "attention_prefill"
               for k in kernels(t))
    lent = load_calibration("h100_sxm")
    surface = put_right(kernel, MI300X, lent)
    theirs = lent.surface("attention_prefill", "bf16:bf16")[0]
    errors = log_errors(surface, kernel, MI300X)
    assert abs(np.median(errors)) < 1e-4 and np.abs(errors).max() < 0.2
    assert surface.efficiency.compute < 0.7 * theirs.efficiency.compute
    assert surface.efficiency.launch_s == theirs.efficiency.launch_s
    assert surface.correction == theirs.correction
    assert surface.efficiency.log_error >= 2.0 * theirs.efficiency.log_error


@pytest.mark.published
def test_bf16_products_of_a_sister_that_nothing_was_fitted_to() -> None:
    """Square bf16 products of PyTorch on MI325X (HazyResearch/HipKittens @f09e9685, MIT,
    analysis/bf16_gemm/mi325x/mi325x_bf16_gemm.json); from 4096 on, where launches count little."""
    size = np.array([4096.0, 8192.0, 16384.0])
    measured_s = np.array([0.18263407, 1.40011008, 11.73197618]) * 1e-3
    found = load_calibration(MI325X).latency("gemm", MI325X, m=size, n=size, k=size)
    assert np.all(np.abs(found.seconds / measured_s - 1.0) < 0.2)


def test_a_stand_in_of_other_types_is_as_unsure_as_measured_pairs_are_apart() -> None:
    calibration = read_calibration("mi300x")
    own, same = calibration.surface("moe", "fp8_block:fp8")
    other, factor = calibration.surface("moe", "fp8:fp8")
    assert same == 1.0 and other == replace(own, layers=None)
    assert factor * other.efficiency.log_error > 0.39


def test_the_published_all_reduce_is_met_and_is_no_faster_than_the_links() -> None:
    table, = (t for t in published(MI300X) if t.operator == "all_reduce")
    seconds = load_calibration(MI300X).latency("all_reduce", MI300X, **table.shape).seconds
    off = np.abs(np.log(seconds / table.latency_s))
    assert np.median(off) < 0.1 and off.max() < 0.6
    size = table.shape["message_bytes"]
    # 1.75 passes of the bytes over seven links of 64 GB/s.
    assert np.all(table.latency_s[size > 1e8] > 1.75 * size[size > 1e8] / 448e9)
