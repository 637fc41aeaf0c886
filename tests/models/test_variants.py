"""Variants keep what they promise to keep."""

from __future__ import annotations

import pytest

from costsim.errors import InputError
from costsim.models.count import active_parameters, kv_bytes_per_token, total_parameters
from costsim.models.loader import load_model
from costsim.models.variants import (
    dense_of_equal,
    deviation,
    finer_experts,
    moe_variant,
    pruned,
    quantised,
)


@pytest.mark.parametrize("experts", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("base", ["llama-3.1-70b", "gpt-4", "mixtral-8x22b"])
def test_equal_active_keeps_active_weights_but_for_the_router(base: str, experts: int) -> None:
    model = load_model(base)
    variant = moe_variant(model, experts=experts, top_k=4, keep="active")
    assert abs(deviation(variant, model, "active")) < 0.01
    assert kv_bytes_per_token(variant) == kv_bytes_per_token(model)


@pytest.mark.parametrize("experts", [8, 16, 64, 128])
def test_equal_total_keeps_total_weights(experts: int) -> None:
    model = load_model("gpt-4")
    variant = moe_variant(model, experts=experts, top_k=2, keep="total")
    assert abs(deviation(variant, model, "total")) < 0.01
    assert variant.provenance == "rumoured"


def test_shared_experts_take_their_part() -> None:
    model = load_model("llama-3.1-70b")
    variant = moe_variant(model, experts=64, top_k=6, shared_experts=2, keep="active", name="x")
    ffn = variant.layers[0].ffn
    assert ffn is not None and ffn.width == 3584 and ffn.shared_width == 7168
    assert variant.name == "x" and variant.provenance == "hypothetical"


def test_more_experts_at_equal_active_store_more() -> None:
    model = load_model("llama-3.1-70b")
    totals = [
        total_parameters(moe_variant(model, experts=e, top_k=2, keep="active"))
        for e in (8, 32, 128)
    ]
    assert totals == sorted(totals) and totals[0] > total_parameters(model)


def test_dense_of_equal_inverts_a_variant() -> None:
    model = load_model("llama-3.1-70b")
    variant = moe_variant(model, experts=16, top_k=2, keep="active")
    assert total_parameters(dense_of_equal(variant, "active")) == total_parameters(model)


def test_finer_experts_keep_both_counts() -> None:
    model = load_model("mixtral-8x22b")
    finer = finer_experts(model, 8)
    assert abs(deviation(finer, model, "total")) < 0.001
    assert abs(deviation(finer, model, "active")) < 0.001


def test_pruned_halves_what_it_should() -> None:
    model = load_model("llama-3.1-70b")
    half = pruned(model, layers=0.5)
    assert kv_bytes_per_token(half) == kv_bytes_per_token(model) / 2
    fewer = pruned(model, heads=0.5, ffn=0.5)
    mixer = fewer.layers[0].mixer
    assert mixer is not None and mixer.heads == 32 and mixer.kv_heads == 4  # type: ignore[union-attr]
    assert active_parameters(fewer) < 0.55 * active_parameters(model)


def test_quantised_changes_types_only() -> None:
    model = load_model("llama-3.1-70b")
    variant = quantised(model, "int4")
    assert variant.quantisation.ffn == "int4" and variant.quantisation.activation == "bf16"
    assert total_parameters(variant) == total_parameters(model)


@pytest.mark.parametrize("wrong", [{"top_k": 9}, {"top_k": 0}, {"experts": 0}, {"keep": "both"}])
def test_wrong_numbers_are_one_line(wrong: dict[str, object]) -> None:
    values: dict[str, object] = {"experts": 8, "top_k": 2, "keep": "active", **wrong}
    with pytest.raises(InputError) as error:
        moe_variant(load_model("llama-3.1-8b"), **values)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_wrong_shares_and_types_are_refused() -> None:
    model = load_model("llama-3.1-8b")
    with pytest.raises(InputError, match="at most 1"):
        pruned(model, layers=float("nan"))
    with pytest.raises(InputError, match="data type"):
        quantised(model, "fp9")
    with pytest.raises(InputError, match="no experts"):
        finer_experts(model, 2)
