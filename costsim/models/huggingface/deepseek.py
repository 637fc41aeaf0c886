"""DeepSeek V2 to V4, Kimi K2, GLM-5: latent attention, sparse indexers, compressed caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.decoder import has_experts, with_mtp
from costsim.models.huggingface.pieces import (
    assemble,
    dense,
    experts,
    hidden_size,
    layer_count,
    mla,
    moe_layers,
)


def feed_forward(c: Config, router_bias: bool) -> list[FeedForward]:
    """Return the FFN of each layer: first dense ones, then experts with shared ones."""
    layers = layer_count(c)
    moe = moe_layers(c, layers) if has_experts(c) else [False] * layers
    plain = dense(c) if not all(moe) else None
    mixture = experts(c, router_bias=router_bias) if any(moe) else None
    c.value("intermediate_size")
    return [each for each in (mixture if m else plain for m in moe) if each is not None]


def _corrected(c: Config) -> bool:
    """Say whether the router has a correction bias; all but DeepSeek-V2 and Mistral 4 do."""
    default = "greedy" if c.text("model_type") in ("deepseek_v2", "mistral4") else "noaux_tc"
    return c.text("topk_method", default=default) == "noaux_tc"


def read_mla(c: Config) -> Model:
    """DeepSeek-V2, V3, R1 and Kimi K2."""
    corrected = _corrected(c)
    mixer = mla(c)
    c.flag("attention_bias")
    layers = [Layers(1, mixer, ffn) for ffn in feed_forward(c, corrected)]
    return with_mtp(c, assemble(c, layers))


def read_dsa(c: Config) -> Model:
    """DeepSeek-V3.2 and GLM-5: MLA with a lightning indexer (arXiv:2512.02556).

    GLM-5.2 and later let three of four layers use the tokens that the layer before chose
    (``indexer_types`` = shared): they have no indexer of their own.
    """
    index = {
        "kind": "dsa", "index_heads": c.count("index_n_heads"),
        "index_head_dim": c.count("index_head_dim"), "index_topk": c.count("index_topk"),
    }
    corrected = _corrected(c)
    c.flag("attention_bias")
    full = mla(c, **index)
    shared = replace(full, index_heads=0, index_head_dim=0, shares_index=True)
    kinds = _indexer_kinds(c, layer_count(c))
    c.value("layer_types")  # all sparse; the indexer's own list tells the two kinds apart
    layers = [
        Layers(1, shared if kind == "shared" else full, ffn)
        for kind, ffn in zip(kinds, feed_forward(c, corrected), strict=True)
    ]
    return with_mtp(c, assemble(c, layers))


def _indexer_kinds(c: Config, layers: int) -> list[Any]:
    return c.per_layer("indexer_types", layers) or ["full"] * layers


def _compressor_parameters(hidden: int, head_dim: int, ratio: int) -> int:
    """Weights that pool ``ratio`` tokens into one entry; ratio 4 overlaps and has two halves."""
    width = head_dim * (2 if ratio <= 4 else 1)
    return 2 * hidden * width + ratio * width + head_dim


def _v4_attention(c: Config, ratio: int) -> Attention:
    """Return the attention of a V4 layer: its window alone, or a compressor besides."""
    heads, head_dim = c.count("num_attention_heads"), c.count("head_dim")
    hidden, rank = hidden_size(c), c.count("q_lora_rank")
    c.value("qk_rope_head_dim", "attention_bias", "num_key_value_heads")
    base = Attention(
        "sliding", heads, 1, head_dim, head_dim, window=c.count("sliding_window"),
        q_lora_rank=rank, k_is_v=True, output_lora_rank=c.count("o_lora_rank"),
        output_groups=c.count("o_groups"),
    )
    index_heads, index_dim = c.count("index_n_heads"), c.count("index_head_dim")
    topk = c.count("index_topk")
    if not ratio:
        return base
    pooling = _compressor_parameters(hidden, head_dim, ratio)
    base = replace(base, kind="sparse", kv_compression=ratio, extra_matrices=pooling)
    if ratio > 4:
        return base
    # the indexer's own compressor takes the place of the key projection that `count` assumes
    pooling += _compressor_parameters(hidden, index_dim, ratio) - (hidden + 2) * index_dim
    return replace(
        base, index_heads=index_heads, index_head_dim=index_dim, index_topk=topk,
        extra_matrices=pooling,
    )


def _compress_ratios(c: Config, layers: int) -> list[int]:
    """Return the tokens per cache entry of each layer, 0 for the window alone."""
    kinds, rates = c.per_layer("layer_types", layers), c.value("compress_rates") or {}
    listed = c.per_layer("compress_ratios", layers)
    return [int(r) for r in listed] or [int(rates.get(kind, 0)) for kind in kinds]


def read_v4(c: Config) -> Model:
    """DeepSeek-V4: sliding window plus compressed entries, hyper-connections.

    Layers with ratio 4 read the ``index_topk`` entries an indexer chose, those with ratio 128 all
    compressed entries, those with 0 the window alone. Source: the modelling code of
    ``deepseek_v4`` in transformers 5.24.
    """
    hidden, layers = hidden_size(c), layer_count(c)
    ratios = _compress_ratios(c, layers)
    streams = c.count("hc_mult", default=1)
    mixing = (2 + streams) * streams
    connections = 2 * (mixing * streams * hidden + mixing + 3) if streams > 1 else 0
    named = c.per_layer("mlp_layer_types", layers)
    hashed = c.count("num_hash_layers", default=named.count("hash_moe"), minimum=0)
    learned = experts(c, router_bias=True)
    c.value("intermediate_size")
    result = []
    for i, ratio in enumerate(ratios or [0] * layers):
        mixer = _v4_attention(c, ratio)
        mixer = replace(mixer, extra_matrices=mixer.extra_matrices + connections)
        ffn = replace(learned, router_bias=i >= hashed)
        # besides: a sink per head, and the norm of the one KV head
        result.append(Layers(1, mixer, ffn, mixer.heads + mixer.head_dim))
    head = streams * streams * hidden + streams + 1 if streams > 1 else 0
    if hashed:
        c.ignore(f"num_hash_layers = {hashed}: routed by token id; the router's cost is kept")
    model = assemble(c, result, extra_parameters=hidden + head, hyper_connections=streams)
    return with_mtp(c, model)
