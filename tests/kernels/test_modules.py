"""Whole attention layers: their work, what is left beside projections, and how near the sum is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.hardware.loader import load_hardware
from costsim.kernels.build_silicon import as_served
from costsim.kernels.calibration import Calibration
from costsim.kernels.modules import around_s, rest_tables, shape_of
from costsim.kernels.projections import latent_expansion, latent_inward, latent_outward
from costsim.kernels.readers.modules import SIZES, Modules, _modules, read_modules
from costsim.kernels.sparse_work import dsa_decode_work, dsa_prefill_work
from costsim.kernels.store import load_calibration
from costsim.kernels.surface_fit import kernels
from costsim.kernels.table import make_table
from costsim.kernels.work import mla_decode_work, mla_prefill_work
from costsim.models.architecture import Attention
from costsim.models.loader import load_model
from costsim.ops.attention import add_attention
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Tokens, Types
from costsim.validation.modules import validate_modules

B200 = load_hardware("b200_sxm")
LATENT: dict[str, Any] = {"nope_head_dim": 128.0, "rope_head_dim": 64.0, "v_head_dim": 128.0,
                          "kv_lora_rank": 512.0}
SPARSE = {**LATENT, "index_heads": 64.0, "index_head_dim": 128.0, "topk": 2048.0}


def attention_of(name: str) -> tuple[Attention, int]:
    """Return a model's attention and its width."""
    model = load_model(name)
    mixer = model.layers[0].mixer
    assert isinstance(mixer, Attention)
    return mixer, model.hidden_size


@pytest.mark.parametrize(("table", "name"), [
    ("deepseek-ai/DeepSeek-V3", "deepseek-v3"), ("deepseek-ai/DeepSeek-V3.2", "deepseek-v3.2"),
    ("zai-org/GLM-5", "glm-5")])
def test_the_tables_models_are_those_of_the_library(table: str, name: str) -> None:
    sizes, (a, hidden) = SIZES[table], attention_of(name)
    assert sizes.hidden == hidden
    for field in ("q_lora_rank", "nope_head_dim", "v_head_dim", "rope_head_dim", "kv_lora_rank"):
        assert getattr(sizes, field) == getattr(a, field), field
    assert sizes.index_heads == a.index_heads


def test_projections_hold_the_published_weights_of_a_layer() -> None:
    """187,105,280 weights a layer (DeepSeek-V3: d 7168, 128 heads of 128 + 64)."""
    found = latent_inward(7168, 128, 192, 576, 1536, 0, 0)
    found += [latent_expansion(128, 128, 128, 512), latent_outward(7168, 128, 128)]
    assert sum(p.n * p.k for p in found) == 187_105_280


@given(batch=st.integers(1, 64), context=st.integers(1, 2048), heads=st.integers(1, 128))
def test_with_nothing_to_pick_sparse_decode_is_dense_decode(
    batch: int, context: int, heads: int
) -> None:
    shape = {**SPARSE, "index_heads": 0.0}
    sparse = dsa_decode_work(batch, context, heads, **shape)
    dense = mla_decode_work(batch, context, heads, 512.0, 64.0)
    absorbed = 2.0 * batch * heads * (128 + 128) * 512
    assert float(sparse.flop) == pytest.approx(float(dense.flop) + absorbed, rel=1e-12)
    assert float(sparse.bytes) == pytest.approx(
        float(dense.bytes) + 2.0 * heads * (128 + 128) * 512, rel=1e-12)


@given(new_tokens=st.integers(1, 1024), context=st.integers(0, 1024))
def test_short_prompts_are_dense_prompts(new_tokens: int, context: int) -> None:
    sparse = dsa_prefill_work(2, new_tokens, context, 16, **SPARSE)
    dense = mla_prefill_work(2, new_tokens, context, 16, 128.0, 64.0, 128.0, 512.0)
    expansion = 2.0 * 2 * (new_tokens + context) * 16 * (128 + 128) * 512
    assert float(sparse.flop) == pytest.approx(float(dense.flop) + expansion, rel=1e-12)


@given(context=st.integers(1, 200_000), more=st.integers(1, 50_000))
def test_a_longer_context_costs_at_most_its_scores_more(context: int, more: int) -> None:
    one, other = (dsa_decode_work(8, c, 16, **SPARSE) for c in (context, context + more))
    assert other.flop > one.flop and other.bytes > one.bytes
    if context >= 2048:
        scores = 0.5 * 2.0 * 8 * 64 * 128 * more
        assert float(other.flop - one.flop) == pytest.approx(scores, rel=1e-6)


def some_modules(latency: Any, **changes: Any) -> Modules:
    """Return decoding DSA layers of GLM-5 at four sizes."""
    ones = np.ones(4)
    base = Modules("dsa_decode", True, SIZES["zai-org/GLM-5"], False, "bf16", "bf16", "bf16",
                   np.array([1.0, 8.0, 64.0, 512.0]), ones, 4096.0 * ones, 8.0 * ones,
                   np.asarray(latency, float), "sglang", "1.0", "test")
    return replace(base, **changes)


def test_what_is_left_is_the_module_less_its_projections() -> None:
    roofline = Calibration.roofline()
    around = around_s(some_modules(np.zeros(4)), roofline, B200)
    rest = np.array([30e-6, 40e-6, 100e-6, 1e-9])
    (table,) = rest_tables([some_modules(around + rest)], roofline, B200)
    np.testing.assert_allclose(np.sort(table.latency_s), np.sort(rest[:3]), rtol=1e-9)
    assert set(table.shape["index_heads"]) == {32.0}


def test_layers_timed_with_the_host_in_the_way_are_left_out_prompts_too() -> None:
    def layer(operator: str, engine: str, floor: float) -> Any:
        shape = {"batch": np.arange(1.0, 9.0), "context": 128.0, "heads": 8.0}
        if operator == "dsa_prefill":
            shape["new_tokens"] = 128.0
        table = make_table(operator, shape, floor * (1.0 + np.arange(8.0)), software=engine,
                           version="1")
        return next(iter(kernels(table)))

    found = [layer("dsa_decode", "sglang", 20e-6), layer("dsa_decode", "vllm", 120e-6),
             layer("dsa_prefill", "sglang", 1e-3), layer("dsa_prefill", "vllm", 1e-3)]
    assert {(k.operator, k.engine) for k in as_served(found)} == {
        ("dsa_decode", "sglang"), ("dsa_prefill", "sglang")}


def test_short_prompts_and_other_layers_choices_are_left_out(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    rows = {"batch_size": [1, 1, 1, 1, 64], "isl": [64, 128, 256, 8192, 512],
            "step": [0, 0, 0, 0, 1024], "latency": [0.5, 0.5, 0.6, 5.0, 9.0],
            "op_name": ["dsa_context_module"] * 4 + ["dsa_context_module_skip_indexer"],
            "kernel_source": ["sglang_dsa_dense"] * 3 + ["sglang_dsa_sparse"] * 2}
    fixed = {"model": "zai-org/GLM-5", "gemm_type": "bfloat16", "kv_cache_dtype": "fp8",
             "num_heads": 8}
    table = pa.table({**rows, **{k: [v] * 5 for k, v in fixed.items()}})
    path = tmp_path / "sys" / "sparse_attention" / "sglang" / "1.0"
    path.mkdir(parents=True)
    parquet.write_table(table, path / "dsa_context_module_perf.parquet")
    (found,) = _modules(path / "dsa_context_module_perf.parquet")
    assert found.new_tokens.tolist() == [8192.0] and found.kv_dtype == "fp8"
    assert found.latency_s.tolist() == [5e-3] and found.index_heads == 32


def test_the_models_layer_is_the_measured_layer() -> None:
    """What the operators add up to for GLM-5 is what validation holds against the tables."""
    a, hidden = attention_of("glm-5")
    calibration = load_calibration(B200).for_engine("sglang")
    m = some_modules(np.ones(4))
    queue = Queue()
    add_attention(queue, Machine(B200, calibration), a, hidden,
                  Tokens(decode_requests=m.batch, decode_context=m.context, all_groups=m.batch),
                  8, 1, Types(), 1)
    inner = calibration.latency("dsa_decode", B200, **shape_of(m)).seconds
    np.testing.assert_allclose(np.broadcast_to(queue.price().seconds, 4),
                               around_s(m, calibration, B200) + inner, rtol=1e-9)


def test_without_measured_layers_sparse_attention_is_the_sum_of_its_kernels() -> None:
    a, hidden = attention_of("glm-5")
    a100 = load_hardware("a100_sxm_80gb")
    queue = Queue()
    add_attention(queue, Machine(a100, load_calibration(a100)), a, hidden,
                  Tokens(decode_requests=8.0, decode_context=4096.0, all_groups=8.0), 8, 1,
                  Types(), 1)
    assert {"indexer", "index selection", "latent expansion"} <= set(queue.price_by_name())


@pytest.mark.parametrize("name", ["h200_sxm", "b200_sxm", "gb200_nvl72"])
def test_decoding_layers_are_near_the_sum_of_their_operators(silicon: Path, name: str) -> None:
    hardware = load_hardware(name)
    system = {"gb200_nvl72": "gb200"}.get(name, name)
    found = {(e.operator, e.variant, e.engine): e for e in validate_modules(
        read_modules(system), load_calibration(hardware), hardware)}
    for (operator, kernel, engine), errors in found.items():
        if kernel.startswith("decode"):
            limit = 0.12 if operator == "mla_layer" else 0.06
            assert errors.median <= limit and errors.p90 <= 0.35, (operator, kernel, engine)
    # A device at half its rates must be found out.
    slow = replace(hardware, memory_bandwidth_bytes_per_s=hardware.memory_bandwidth_bytes_per_s / 2,
                   peak_flop_per_s={k: v / 2 for k, v in hardware.peak_flop_per_s.items()})
    wrong = validate_modules(
        [m for m in read_modules(system) if m.engine == "sglang" and m.operator == "dsa_decode"],
        load_calibration(hardware), slow)
    assert all(e.p90 > 0.4 for e in wrong)
