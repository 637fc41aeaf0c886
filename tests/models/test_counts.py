"""Weights, cache and arithmetic against counts done by hand, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model
from costsim.models.count import (
    active_parameters,
    attended_tokens,
    flop_per_token,
    kv_bytes,
    kv_bytes_per_token,
    layer_parameters,
    parameters,
    state_bytes,
    total_parameters,
)
from costsim.models.loader import list_models, load_model

GQA = Attention("full", 4, 2, 8, 8)
DENSE = FeedForward("dense", 64)
MOE = FeedForward("moe", 16, experts=8, top_k=2, shared_width=32, shared_gate=True)


def tiny(*layers: Layers, **changes: object) -> Model:
    values = {"hidden_size": 32, "vocab_size": 100, "extra_parameters": 32, **changes}
    return Model("tiny", "tiny", layers=layers, **values)  # type: ignore[arg-type]


@pytest.mark.theory
def test_dense_layer_by_hand() -> None:
    model = tiny(Layers(3, GQA, DENSE))
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    ffn = 3 * 32 * 64
    part = layer_parameters(model, model.layers[0])
    assert (part.attention, part.ffn, part.norms) == (attention, ffn, 64)
    assert total_parameters(model) == 3 * (attention + ffn + 64) + 2 * 3200 + 32


@pytest.mark.theory
def test_moe_layer_by_hand() -> None:
    model = tiny(Layers(1, GQA, MOE))
    part = layer_parameters(model, model.layers[0])
    assert part.experts == 8 * 3 * 32 * 16 and part.active_experts == 2 * 3 * 32 * 16
    assert part.shared == 3 * 32 * 32 and part.router == 32 * 8 + 32
    assert total_parameters(model) - active_parameters(model) == 6 * 3 * 32 * 16


@pytest.mark.theory
def test_latent_experts_by_hand() -> None:
    ffn = FeedForward("moe", 16, False, experts=8, top_k=2, latent_size=12, router_bias=True)
    model = tiny(Layers(1, None, ffn))
    part = layer_parameters(model, model.layers[0])
    assert part.experts == 8 * 2 * 12 * 16
    assert part.router == 32 * 8 + 8 + 2 * 32 * 12 and part.attention == 0


@pytest.mark.theory
def test_mla_by_hand() -> None:
    mla = Attention("mla", 4, 4, 12, 8, q_lora_rank=16, kv_lora_rank=20, rope_head_dim=4,
                    nope_head_dim=8)
    model = tiny(Layers(2, mla, None))
    expected = 32 * 16 + 16 + 16 * 4 * 12 + 32 * 24 + 20 + 20 * 4 * 16 + 4 * 8 * 32
    assert layer_parameters(model, model.layers[0]).attention == expected
    assert kv_bytes_per_token(model, "bf16") == 2 * 24 * 2
    expanded = flop_per_token(model, 10) - flop_per_token(model, 0)
    absorbed = flop_per_token(model, 10, absorbed=True) - flop_per_token(model, 0)
    assert expanded == 2 * 2 * 4 * (12 + 8) * 10 and absorbed == 2 * 2 * 4 * (2 * 20 + 4) * 10


@pytest.mark.theory
def test_flop_by_hand() -> None:
    model = tiny(Layers(2, GQA, DENSE))
    matrices = 2 * (32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 64)
    assert flop_per_token(model, 7) == 2 * matrices + 2 * 4 * 4 * 8 * 7 + 2 * 3200
    assert flop_per_token(model, 7, head=False) == 2 * matrices + 2 * 4 * 4 * 8 * 7


@pytest.mark.theory
def test_windows_cap_cache_and_arithmetic() -> None:
    local = Attention("sliding", 4, 2, 8, 8, window=16)
    model = tiny(Layers(1, local, DENSE), Layers(1, GQA, DENSE))
    per_layer = 2 * 2 * 8 * 2
    assert kv_bytes(model, 10, "bf16") == 2 * per_layer * 10
    assert kv_bytes(model, 100, "bf16") == per_layer * (16 + 100)
    np.testing.assert_allclose(
        kv_bytes(model, np.array([10, 100]), "bf16"), [2 * per_layer * 10, per_layer * 116]
    )
    assert attended_tokens(local, 100) == 16
    chunked = Attention("chunked", 4, 2, 8, 8, window=15)
    assert attended_tokens(chunked, 5) == 5
    assert attended_tokens(chunked, 1000) == np.mean(np.arange(1, 16))


@pytest.mark.theory
def test_compressed_sparse_attention_by_hand() -> None:
    mixer = Attention("sparse", 4, 1, 8, 8, window=16, k_is_v=True, kv_compression=4,
                      index_heads=2, index_head_dim=128, index_topk=50)
    model = tiny(Layers(1, mixer, None))
    # 8 elements of 2 bytes a token, a quarter kept, the last 16 tokens whole, indexer keys in fp8
    assert kv_bytes(model, 1000, "bf16") == 16 * 1000 / 4 + 16 * 16 + 132 * 1000 / 4
    assert attended_tokens(mixer, 100) == 25 + 16
    assert attended_tokens(mixer, 1000) == 50 + 16


@pytest.mark.theory
def test_state_bytes_by_hand() -> None:
    mixer = LinearAttention("gated_deltanet", 2, 4, 16, 8, 4, parameters=1000)
    model = tiny(Layers(3, mixer, DENSE))
    assert state_bytes(model) == 3 * (4 * 16 * 8 * 4 + 3 * (2 * 2 * 16 + 4 * 8) * 2)
    assert kv_bytes(model, 1000) == 0


def test_shared_and_cross_layers_store_nothing() -> None:
    for changes in ({"shares_kv": True}, {"cross": True}):
        model = tiny(Layers(1, Attention("full", 4, 2, 8, 8, **changes), DENSE))  # type: ignore[arg-type]
        assert kv_bytes_per_token(model) == 0


@pytest.mark.published
def test_deepseek_v3_cache_is_not_that_of_its_heads() -> None:
    assert kv_bytes_per_token(load_model("deepseek-v3"), "bf16") == 61 * 576 * 2


@pytest.mark.parametrize("name", list_models())
def test_parts_add_up_and_arithmetic_grows_with_context(name: str) -> None:
    model = load_model(name)
    counted = parameters(model)
    assert 0 < counted.active <= counted.total
    assert counted.total == total_parameters(model)
    contexts = np.array([1.0, 100.0, 1e4, 1e5])
    for absorbed in (False, True):
        flop = flop_per_token(model, contexts, absorbed=absorbed)
        assert np.all(np.diff(flop) >= 0)
        # at least 2 FLOP for each matrix weight, norms and biases being below 1 %
        assert flop[0] > 1.98 * (active_parameters(model) - counted.embedding)
    assert np.all(np.diff(kv_bytes(model, contexts)) >= 0)


@given(context=st.floats(1, 1e6), dtype=st.sampled_from(["bf16", "fp8"]))
def test_cache_never_exceeds_the_uncapped(context: float, dtype: str) -> None:
    for name in ("gpt-oss-120b", "gemma-3-27b", "llama-4-scout"):
        model = load_model(name)
        assert kv_bytes(model, context, dtype) <= kv_bytes_per_token(model, dtype) * context * 1.001
