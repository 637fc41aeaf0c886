"""Gemma 4: sliding and global layers with other head sizes, an MoE beside the dense FFN."""

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
)


def _attention(c: Config, layers: int) -> list[Attention]:
    """Return the attention of each layer; the last ones may read an earlier layer's cache."""
    kinds = c.per_layer("layer_types", layers) or [
        "full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)
    ]
    window = c.count("sliding_window", default=512)
    local = replace(gqa(c, qk_norm=True), kind="sliding", window=window)
    same = c.flag("attention_k_eq_v")
    wide = gqa(
        c, qk_norm=True, head_dim=_global_head_dim(c, local.head_dim), k_is_v=same,
        kv_heads=c.count("num_global_key_value_heads", default=local.kv_heads),
    )
    # keys and values come of one projection but are normed apart, so both are cached
    sharing = c.count("num_kv_shared_layers", default=0, minimum=0)
    c.flag("attention_bias")
    result = [local if "sliding" in str(kind) else wide for kind in kinds]
    return [
        replace(each, shares_kv=True) if i >= layers - sharing else each
        for i, each in enumerate(result)
    ]


def _global_head_dim(c: Config, default: int) -> int:
    """Return the head size of layers over all of the context, however it is spelled."""
    by_layer = c.value("per_layer_config") or {}
    sizes = [each.get("head_dim", 0) for each in by_layer.values()]
    return c.count("global_head_dim", default=max(sizes, default=0) or default)


def _feed_forward(c: Config) -> tuple[FeedForward, int]:
    """Return the FFN and the small weights that it does not count."""
    hidden = hidden_size(c)
    if not c.flag("enable_moe_block") or not c.has("num_experts"):
        c.value("num_experts", "top_k_experts", "expert_intermediate_size", "enable_moe_block")
        return dense(c), 2 * hidden
    ffn = experts(c, shared_width=c.count("intermediate_size"))
    return ffn, 5 * hidden + hidden + ffn.experts


def _with_per_layer_inputs(layers: list[Layers], hidden: int, size: int) -> list[Layers]:
    """Return layers with the gate, projection and norm of an embedding per layer (Gemma 3n)."""
    result = []
    for each in layers:
        mixer = each.mixer
        assert isinstance(mixer, Attention)
        wider = replace(mixer, extra_matrices=mixer.extra_matrices + 2 * hidden * size)
        result.append(replace(each, mixer=wider, extra_parameters=each.extra_parameters + hidden))
    return result


def read_gemma4(c: Config) -> Model:
    """Gemma 4; the dense FFN that stands beside the experts counts as a shared expert."""
    layers, hidden = layer_count(c), hidden_size(c)
    ffn, extra = _feed_forward(c)
    doubled = c.flag("use_double_wide_mlp")
    stack = [
        Layers(1, mixer, replace(ffn, width=2 * ffn.width) if doubled and mixer.shares_kv else ffn,
               extra)
        for mixer in _attention(c, layers)
    ]
    size = c.count("hidden_size_per_layer_input", default=0, minimum=0)
    rows = c.count("vocab_size_per_layer_input", default=0, minimum=0)
    other = hidden
    if size:
        stack = _with_per_layer_inputs(stack, hidden, size)
        other += (rows + hidden) * layers * size + size
    c.value("use_bidirectional_attention")
    return assemble(c, stack, tied=True, extra_parameters=other)
