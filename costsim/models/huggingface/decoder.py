"""Decoders of one plan: softmax attention and an FFN in every layer, told apart by traits."""

from __future__ import annotations

from dataclasses import replace

from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.pieces import (
    assemble,
    dense,
    experts,
    gqa,
    hidden_size,
    layer_count,
    moe_layers,
    mtp_parameters,
)
from costsim.models.huggingface.traits import TRAITS, Traits
from costsim.models.parameters import layer_parameters


def _biased(c: Config, traits: Traits) -> tuple[bool, bool]:
    """Return whether the input projections and the output projection have a bias."""
    given = c.value("attention_bias", "qkv_bias", "use_qkv_bias")
    output = c.value("attention_out_bias", "use_bias")
    if given is None:
        return traits.qkv_bias, traits.output_bias if output is None else bool(output)
    on_output = bool(given) and traits.bias_on_output
    return bool(given), on_output if output is None else bool(output)


def _windows(c: Config, traits: Traits, layers: int) -> list[int]:
    """Return the window of each layer, 0 for all of the context."""
    window = c.count("sliding_window", "sliding_window_size", default=0, minimum=0)
    types = c.per_layer("layer_types", layers)
    if c.has("hybrid_layer_pattern"):  # MiMo-V2: 1 marks a sliding layer
        types = ["sliding" if k else "full" for k in c.per_layer("hybrid_layer_pattern", layers)]
    pattern = c.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
    flagged = c.flag("use_sliding_window", default=traits.window != "flagged")
    if types:
        return [window if "sliding" in str(kind) else 0 for kind in types]
    if not window or not flagged:
        return [0] * layers
    if traits.window == "even":
        return [window if i % 2 == 0 else 0 for i in range(layers)]
    if traits.window == "pattern":
        return [window if (i + 1) % pattern else 0 for i in range(layers)]
    first = c.count("max_window_layers", default=0, minimum=0) if traits.window == "flagged" else 0
    return [window if i >= first else 0 for i in range(layers)]


def _attention(c: Config, traits: Traits) -> Attention:
    bias, output_bias = _biased(c, traits)
    qk_norm = traits.qk_norm == "head" or (not traits.qk_norm and c.flag("use_qk_norm"))
    if traits.qk_norm:
        c.value("use_qk_norm", "qk_norm_type")
    if 0 in c.items("attn_type_list"):
        c.ignore("attn_type_list: linear layers are counted as softmax attention")
    mixer = gqa(c, qkv_bias=bias, output_bias=output_bias, qk_norm=qk_norm)
    gates = hidden_size(c) * mixer.heads if traits.head_gate else 0
    return replace(mixer, extra_matrices=gates)


def _extra(c: Config, traits: Traits, mixer: Attention) -> int:
    """Return small weights of a layer that neither the mixer nor the FFN counts."""
    hidden = hidden_size(c)
    extra = traits.extra_norms * hidden
    extra += (2 + traits.extra_norms) * hidden if traits.norm_bias else 0
    if traits.qk_norm == "flat":
        extra += (mixer.heads + mixer.kv_heads) * mixer.head_dim
    sinks = traits.sinks == "all" or (traits.sinks == "sliding" and mixer.kind == "sliding")
    extra += mixer.heads if sinks else 0
    return extra


def _windowed(c: Config, mixer: Attention, window: int) -> Attention:
    """Return the attention of a sliding layer, which may have heads of its own (``swa_*``)."""
    if not window:
        return mixer
    heads = c.count("swa_num_attention_heads", default=mixer.heads)
    return replace(
        mixer, kind="sliding", window=window, heads=heads,
        kv_heads=c.count("swa_num_key_value_heads", default=mixer.kv_heads),
        head_dim=c.count("swa_head_dim", default=mixer.head_dim),
        v_head_dim=c.count("swa_v_head_dim", default=mixer.v_head_dim),
    )


def _dense_ffn(c: Config, traits: Traits) -> FeedForward:
    return dense(c, "dense_intermediate_size", "intermediate_size", gated=traits.gated,
                 bias=c.flag("mlp_bias", default=traits.ffn_bias))


def has_experts(c: Config) -> bool:
    """Say whether a config names experts."""
    return any(
        c.has(key)
        for key in ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    )


def stack(c: Config, traits: Traits) -> list[Layers]:
    """Return the layers of a decoder, one entry each."""
    layers = layer_count(c)
    mixer = _attention(c, traits)
    v_head_dim = c.count("v_head_dim", default=mixer.v_head_dim)
    mixer = replace(mixer, v_head_dim=v_head_dim)
    windows = _windows(c, traits, layers)
    moe = moe_layers(c, layers) if has_experts(c) else [False] * layers
    plain = _dense_ffn(c, traits) if not all(moe) else None
    c.value("intermediate_size", "dense_intermediate_size", "mlp_bias")
    router_bias = traits.router_bias and c.flag(
        "use_routing_bias", "use_moe_router_bias", "moe_router_enable_expert_bias", default=True
    )
    mixture = experts(
        c, gated=traits.gated, router_bias=router_bias, shared_gate=traits.shared_gate,
        bias=traits.ffn_bias,
    ) if any(moe) else None
    result = []
    for window, is_moe in zip(windows, moe, strict=True):
        attention = _windowed(c, mixer, window)
        ffn = mixture if is_moe else plain
        result.append(Layers(1, attention, ffn, _extra(c, traits, attention)))
    return result


def read_decoder(c: Config, traits: Traits | None = None) -> Model:
    """Return the model of a config that follows the plan.

    Args:
        c: the config of the decoder.
        traits: of the family; None takes them by ``model_type``, or Llama's.
    """
    if traits is None:
        traits = TRAITS.get(c.text("model_type"), Traits())
    layers = stack(c, traits)
    hidden = hidden_size(c)
    extra = hidden * (2 if traits.norm_bias else 1) * traits.final_norm
    if c.flag("lm_head_bias", default=traits.head_bias):
        extra += c.count("vocab_size")
    model = assemble(c, layers, tied=traits.tied, extra_parameters=extra)
    return with_mtp(c, model)


def with_mtp(c: Config, model: Model) -> Model:
    """Return the model with the multi-token-prediction layers its config names."""
    count = c.count(
        "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", default=0,
        minimum=0,
    )
    c.value("num_mtp_modules", "mtp_transformer_layers", "mtp_use_dedicated_embeddings")
    if not count or (c.table.get("use_mtp") is False):
        return model
    c.value("use_mtp")
    one = mtp_parameters(model, layer_parameters(model, model.layers[-1]).total)
    return replace(model, mtp_layers=count, mtp_parameters=count * one)
