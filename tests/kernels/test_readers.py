"""Readers: units, sizes and choices of rows, on small files whose every number is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.kernels.collectives import distinct
from costsim.kernels.readers import silicon
from costsim.kernels.readers.llmservingsim import read_llmservingsim
from costsim.kernels.readers.vidur import read_vidur_all_reduce, read_vidur_mlp
from costsim.kernels.sources import read_source
from costsim.models.loader import load_model

LLAMA = load_model("llama-3.1-8b")


def columns(**found: Any) -> dict[str, Any]:
    """Return columns as a parquet table gives them, scalars spread over the rows."""
    rows = max(len(v) for v in found.values() if isinstance(v, list))
    return {n: np.array(v if isinstance(v, list) else [v] * rows) for n, v in found.items()}


def read(name: str, c: dict[str, Any]) -> dict[str, tuple[dict[str, Any], Any]]:
    """Return what a silicon reader makes of columns, by operator."""
    return {op: (shape, seconds) for op, shape, seconds in silicon._READERS[name](c)}


def test_nccl_sizes_are_elements_and_times_milliseconds() -> None:
    found = read("nccl", columns(
        op_name=["all_reduce", "all_reduce", "alltoall", "all_gather", "reduce_scatter"],
        nccl_dtype=["half", "int8", "half", "half", "half"], num_gpus=8, message_size=1024,
        latency=[0.01, 0.02, 0.03, 0.04, 0.05]))
    shape, seconds = found["all_reduce"]
    np.testing.assert_array_equal(shape["message_bytes"], [2048.0, 1024.0])
    np.testing.assert_allclose(seconds, [1e-5, 2e-5])
    assert set(found) == {"all_reduce", "all_to_all", "all_gather", "reduce_scatter"}
    np.testing.assert_allclose(found["all_to_all"][1], [3e-5])


def test_custom_all_reduce_takes_the_captured_rows_where_there_are_some() -> None:
    c = columns(kernel_source=["vLLM_custom_graph", "vLLM_custom_eager"], num_gpus=4,
                message_size=512, latency=[0.01, 0.05])
    shape, seconds = read("custom_allreduce", c)["all_reduce"]
    np.testing.assert_allclose(seconds, [1e-5])
    np.testing.assert_array_equal(shape["message_bytes"], [1024.0])
    only = {n: v[1:] for n, v in c.items()}
    np.testing.assert_allclose(read("custom_allreduce", only)["all_reduce"][1], [5e-5])


def test_mla_contexts_are_cached_and_new_tokens_together() -> None:
    c = columns(batch_size=2, isl=[1, 128], step=[1023, 0], num_heads=16, mla_dtype="bfloat16",
                kv_cache_dtype="fp8", latency=[0.1, 0.2])
    decode, _ = read("generation_mla", c)["mla_decode"]
    np.testing.assert_array_equal(decode["context"], [1024, 128])
    assert list(decode["kv_dtype"]) == ["fp8", "fp8"]
    prefill, seconds = read("context_mla", c)["mla_prefill"]
    np.testing.assert_array_equal(prefill["new_tokens"], [128])
    np.testing.assert_allclose(seconds, [2e-4])


def test_windows_that_hide_nothing_are_no_windows_and_beams_are_left_out() -> None:
    c = columns(batch_size=1, isl=[64, 512, 512], step=0, num_heads=8, num_key_value_heads=2,
                head_dim=128, beam_width=[1, 1, 4], window_size=128, attn_dtype="bfloat16",
                kv_cache_dtype="bfloat16", latency=0.1)
    shape, seconds = read("context_attention", c)["attention_prefill"]
    np.testing.assert_array_equal(shape["window"], [0, 128])
    assert len(seconds) == 2


def test_power_law_routing_loads_the_slowest_rank_more() -> None:
    c = columns(num_tokens=4096, hidden_size=2048, inter_size=768, topk=8, num_experts=128,
                moe_tp_size=1, moe_ep_size=8, moe_dtype="fp8_block", kernel_source="grouped",
                distribution=["balanced", "power_law_1.2"], latency=1.0)
    shape, _ = read("moe", c)["moe"]
    balanced, skewed = shape["max_load"]
    assert balanced == 1.0 and 1.5 < skewed <= 8.0
    assert list(shape["touched"]) == pytest.approx([16.0, 16.0], rel=0.1)
    assert list(shape["dtype"]) == ["fp8_block"] * 2 and list(shape["activation"]) == ["fp8"] * 2
    assert all(shape["gated"])


def test_deepep_sends_one_copy_to_each_expert_or_to_each_rank() -> None:
    c = columns(device="NVIDIA GB200", node_num=[1, 2], hidden_size=1000, num_token=16, num_topk=8,
                num_experts=256, dispatch_avg_t_us=[10.0, 99.0], combine_avg_t_us=[20.0, 99.0])
    shape, seconds = read("wideep_deepep_ll", c)["all_to_all"]
    np.testing.assert_allclose(shape["message_bytes"], [16 * 8 * 1000, 16 * 8 * 2000])
    np.testing.assert_allclose(shape["ranks"], 4.0)
    np.testing.assert_allclose(seconds, [1e-5, 2e-5])
    c = columns(device="NVIDIA H200", node_num=1, hidden_size=1000, num_token=16, num_topk=1,
                num_experts=256, dispatch_sms=[20, 8], dispatch_transmit_us=10.0,
                dispatch_notify_us=5.0, combine_transmit_us=20.0, combine_notify_us=0.0)
    shape, seconds = read("wideep_deepep_normal", c)["all_to_all"]
    np.testing.assert_allclose(shape["message_bytes"], [16 * 1000, 16 * 2000])
    np.testing.assert_allclose(shape["ranks"], 8.0)
    np.testing.assert_allclose(seconds, [1.5e-5, 2e-5])


@given(ranks=st.integers(1, 128), choices=st.integers(1, 16))
def test_distinct_ranks_against_their_distribution(ranks: int, choices: int) -> None:
    """Occupancy: the mean number of different boxes is Σ j·P(j), P from the Stirling recursion."""
    chance = np.zeros(choices + 1)
    chance[0] = 1.0
    for _ in range(choices):
        grown = chance * np.arange(choices + 1) / ranks
        grown[1:] += chance[:-1] * (1.0 - np.arange(choices) / ranks)
        chance = grown
    assert float(distinct(ranks, choices)) == pytest.approx(chance @ np.arange(choices + 1))


def test_the_one_sided_exchange_is_read() -> None:
    c = columns(kernel_source=["NVLinkOneSided"] * 2 + ["NVLinkTwoSided"], num_tokens=10,
                op_name=["alltoall_dispatch", "alltoall_combine", "alltoall_dispatch"],
                moe_dtype="nvfp4", moe_ep_size=4, topk=8, hidden_size=100, latency=0.5)
    shape, seconds = read("trtllm_alltoall", c)["all_to_all"]
    np.testing.assert_allclose(shape["message_bytes"], [10 * 4 * 100 * 0.5625, 10 * 4 * 100 * 2])
    np.testing.assert_allclose(seconds, 5e-4)


def test_unknown_data_types_and_uneven_experts_are_left_out() -> None:
    c = columns(num_tokens=1, hidden_size=64, inter_size=64, topk=2, num_experts=[8, 8, 6],
                moe_tp_size=1, moe_ep_size=[1, 1, 4], kernel_source="x", distribution="balanced",
                moe_dtype=["bfloat16", "fp3", "bfloat16"], latency=1.0)
    assert len(read("moe", c)["moe"][1]) == 1


@pytest.mark.parametrize(("table", "kind", "chunked", "recurrent", "fused"), [
    ("gdn", "gated_deltanet", "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule_packed",
     "causal_conv1d_update"),
    ("kda", "kda", "flashkda_fwd", "fused_recurrent_kda_packed_decode", "fused_kda_decode")])
def test_recurrences_are_read_alone(
    table: str, kind: str, chunked: str, recurrent: str, fused: str
) -> None:
    c = columns(kernel_source=["causal_conv1d_fn", chunked, chunked, recurrent, fused, recurrent],
                phase=["context"] * 3 + ["generation"] * 2 + ["verify"],
                batch_size=4, seq_len=[512, 512, 4, 1, 1, 4], num_k_heads=16, num_v_heads=32,
                head_k_dim=128, head_v_dim=128, latency=0.1)
    shape, seconds = read(table, c)["linear_attention"]
    np.testing.assert_array_equal(shape["new_tokens"], [512, 1])
    assert list(shape["kind"]) == [kind] and len(seconds) == 2


def write(path: Path, *lines: str) -> Path:
    """Write a file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


VIDUR_HEAD = ("n_head,n_kv_head,n_embd,n_expanded_embd,num_tokens,num_tensor_parallel_workers,"
              + ",".join(f"time_stats.{o}.{s}" for o in (
                  "attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj",
                  "input_layernorm", "post_attention_layernorm", "mlp_act", "add")
                  for s in ("median", "std")))


def test_vidur_linear_operators_are_those_of_one_rank(tmp_path: Path) -> None:
    path = write(tmp_path / "mlp.csv", VIDUR_HEAD, "64,8,8192,28672,128,4," + "0.5,0.01," * 8)
    gemm, elementwise = read_vidur_mlp(path, "a100")
    sizes = set(zip(gemm.shape["n"], gemm.shape["k"], strict=True))
    # (64 + 2·8) heads of 128 over 4 ranks; two gates of 28672 over 4.
    assert sizes == {(2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168)}
    np.testing.assert_allclose(gemm.latency_s, 5e-4)
    np.testing.assert_allclose(gemm.spread, 0.02)
    assert elementwise.shape["bytes"].min() == 128 * 4 * 8192


def test_vidur_repeats_are_merged_and_columns_missed_by_name(tmp_path: Path) -> None:
    head = ("num_workers,devices_per_node,size,time_stats.all_reduce.median,"
            "time_stats.all_reduce.std")
    path = write(tmp_path / "all_reduce.csv", head, "4,4,1024,0.01,0", "4,4,1024,0.03,0",
                 "8,8,64,0.02,0", "8,4,64,0.5,0")
    (table,) = read_vidur_all_reduce(path)
    # The same shape twice is one row; what went over two nodes is none.
    assert len(table) == 2 and np.nanmax(table.spread) > 0.5
    assert table.latency_s[table.shape["ranks"] == 8] == [2e-5]
    broken = write(tmp_path / "broken.csv", "num_workers,time_stats.all_reduce.median", "4,0.01")
    with pytest.raises(InputError, match=r"column .* is missing"):
        read_vidur_all_reduce(broken)


def profile(folder: Path) -> Path:
    """Write a small LLMServingSim profile."""
    folder.mkdir()
    layers = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "layernorm", "act_fn",
              "rotary_emb", "embedding")
    write(folder / "profile_tp2_dense.csv", "layer,tokens,time_us",
          *(f"{name},64,{20 + i}" for i, name in enumerate(layers)))
    write(folder / "profile_tp2_per_sequence.csv", "layer,sequences,time_us",
          "lm_head,8,500", "sampler,8,10")
    write(folder / "profile_tp2_attention.csv",
          "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us",
          "512,1024,0,0,90", "0,0,16,2048,40", "512,0,16,2048,120")
    return folder


def test_llmservingsim_profiles_take_their_sizes_from_the_model(tmp_path: Path) -> None:
    found = {t.operator: t for t in read_llmservingsim(profile(tmp_path / "gpu-x"), 2, LLAMA)}
    gemm = found["gemm"]
    head = gemm.shape["n"] == LLAMA.vocab_size / 2
    assert head.sum() == 1 and gemm.shape["m"][head] == 8
    np.testing.assert_allclose(gemm.latency_s[head], 5e-4)
    qkv = gemm.shape["n"] == (32 + 2 * 8) * 128 / 2
    np.testing.assert_allclose(gemm.latency_s[qkv], 2e-5)
    # The step that mixes prefill and decode is neither's.
    assert len(found["attention_prefill"]) == len(found["attention_decode"]) == 1
    assert found["attention_prefill"].shape["context"] == [1024]
    assert found["attention_decode"].shape["kv_heads"] == [4]


def test_experts_that_were_touched_are_taken_from_the_profile(tmp_path: Path) -> None:
    folder = profile(tmp_path / "gpu-x")
    write(folder / "profile_tp2_moe.csv", "tokens,activated_experts,time_us", "64,100,300")
    mixture = load_model("qwen3-30b-a3b")
    moe = {t.operator: t for t in read_llmservingsim(folder, 2, mixture)}["moe"]
    assert moe.shape["touched"] == [100] and moe.shape["experts"] == [128]


def test_sources_are_told_apart_and_held_against_the_hardware(tmp_path: Path) -> None:
    hardware = load_hardware("rtx_pro_6000")
    folder = profile(tmp_path / "gpu-x")
    with pytest.raises(InputError, match="name the model"):
        read_source(folder, hardware)
    assert {t.operator for t in read_source(folder, hardware, LLAMA, 2)} >= {"gemm"}
    slow = "operator,m,n,k,latency_s\ngemm,64,8192,8192,{}"
    good = write(tmp_path / "good.csv", slow.format("2e-4"))
    assert len(read_source(good, hardware)) == 1
    milliseconds = write(tmp_path / "bad.csv", slow.format("2e-7"))
    with pytest.raises(InputError, match="is the latency in seconds"):
        read_source(milliseconds, hardware)
    with pytest.raises(InputError, match="no such file"):
        read_source(tmp_path / "none.csv", hardware)
