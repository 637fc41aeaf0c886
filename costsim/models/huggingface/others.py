"""Families with plans of their own: Llama 4, DBRX, Grok-1, Falcon, OPT, GPT-2, NAS, MiniMax-M3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costsim.models.architecture import FeedForward, Layers, Model
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.decoder import with_mtp
from costsim.models.huggingface.pieces import (
    assemble,
    dense,
    experts,
    gqa,
    hidden_size,
    layer_count,
    moe_layers,
)


def read_llama4(c: Config) -> Model:
    """Llama 4: chunked attention, every fourth layer over all; a shared expert beside top-1."""
    layers = layer_count(c)
    chunk = c.count("attention_chunk_size", default=8192)
    full = gqa(c, qkv_bias=c.flag("attention_bias"))
    c.flag("use_qk_norm")  # an L2 norm without weights
    local = replace(full, kind="chunked", window=chunk)
    rope = c.per_layer("no_rope_layers", layers) or [(i + 1) % 4 for i in range(layers)]
    width = c.count("intermediate_size")
    mixture = experts(c, shared_width=width)
    plain = dense(c, "intermediate_size_mlp", "intermediate_size")
    stack = [
        Layers(1, local if roped else full, mixture if moe else plain)
        for roped, moe in zip(rope, moe_layers(c, layers), strict=True)
    ]
    return assemble(c, stack)


def read_dbrx(c: Config) -> Model:
    """DBRX: fine-grained experts, LayerNorm without bias, tables for attention and FFN."""
    attention, ffn = c.section("attn_config"), c.section("ffn_config")
    kv_heads = attention.count("kv_n_heads", default=1) if attention else 1
    if ffn is None:
        raise c.error("key 'ffn_config' is missing")
    mixture = experts(ffn, width=ffn.count("ffn_hidden_size"))
    mixer = gqa(c, kv_heads=kv_heads)
    return assemble(c, [Layers(layer_count(c), mixer, mixture)])


def read_grok(c: Config) -> Model:
    """Grok-1: eight experts, two used, four norms in a layer."""
    hidden = hidden_size(c)
    mixture = experts(c)
    return assemble(c, [Layers(layer_count(c), gqa(c), mixture, 2 * hidden)], tied=True)


def read_falcon(c: Config) -> Model:
    """Falcon: attention and FFN side by side; multi-query, or grouped in the new plan."""
    hidden = hidden_size(c)
    new = c.flag("new_decoder_architecture")
    multi_query = c.flag("multi_query", default=True)
    heads = c.count("num_attention_heads", "n_head")
    grouped = c.count("num_kv_heads", "n_head_kv", default=heads)
    kv_heads = grouped if new else (1 if multi_query else heads)
    bias = c.flag("bias")
    mixer = gqa(c, kv_heads=kv_heads, qkv_bias=bias, output_bias=bias)
    width = c.count("ffn_hidden_size", "intermediate_size", default=4 * hidden)
    ffn = FeedForward("dense", width, gated=False, bias=bias)
    parallel = c.flag("parallel_attn", default=True)
    default = 2 if new else (1 if parallel else 2)
    norms = c.count("num_ln_in_parallel_attn", default=default)
    extra = (2 * norms - 2) * hidden  # LayerNorm: weight and bias; two weights are counted anyway
    stack = [Layers(layer_count(c), mixer, ffn, extra)]
    return assemble(c, stack, tied=True, extra_parameters=2 * hidden)


def read_opt(c: Config) -> Model:
    """OPT: biases everywhere, learned positions (two rows more than the context)."""
    hidden = hidden_size(c)
    bias = c.flag("enable_bias", default=True)
    affine = c.flag("layer_norm_elementwise_affine", default=True)
    heads = c.count("num_attention_heads")
    mixer = gqa(c, kv_heads=heads, qkv_bias=bias, output_bias=bias)
    ffn = dense(c, "ffn_dim", gated=False, bias=bias)
    before = c.flag("do_layer_norm_before", default=True)
    c.flag("_remove_final_layer_norm")
    embed = c.count("word_embed_proj_dim", default=hidden)
    if embed != hidden:
        c.ignore(f"word_embed_proj_dim = {embed}: counted as if it were the hidden size {hidden}")
    extra = 2 * hidden if affine else -2 * hidden
    return assemble(
        c, [Layers(layer_count(c), mixer, ffn, extra)], tied=True,
        learned_positions=c.count("max_position_embeddings") + 2,
        extra_parameters=2 * hidden if before and affine else 0,
    )


def read_gpt2(c: Config) -> Model:
    """GPT-2 (and GPT-3 shapes): biases everywhere, learned positions, FFN four times as wide."""
    hidden = hidden_size(c)
    heads = c.count("num_attention_heads", "n_head")
    mixer = gqa(c, kv_heads=heads, qkv_bias=True, output_bias=True)
    ffn = FeedForward("dense", c.count("n_inner", default=4 * hidden), gated=False, bias=True)
    return assemble(
        c, [Layers(layer_count(c), mixer, ffn, 2 * hidden)], tied=True,
        learned_positions=c.count("n_positions", "max_position_embeddings"),
        extra_parameters=2 * hidden,
    )


def _nas_layer(c: Config, heads: int, block: dict[str, Any]) -> Layers:
    attention, ffn = block.get("attention") or {}, block.get("ffn") or {}
    hidden = hidden_size(c)
    extra, mixer, feed = 0, None, None
    if attention.get("replace_with_linear"):
        extra += hidden * hidden + hidden
    elif not attention.get("no_op"):
        mixer = gqa(c, heads=heads, kv_heads=heads // int(attention["n_heads_in_group"]))
        if attention.get("window_length"):
            mixer = replace(mixer, kind="sliding", window=int(attention["window_length"]))
    if ffn.get("replace_with_linear"):
        extra += hidden * hidden + hidden
    elif not ffn.get("no_op"):
        width = int(ffn.get("intermediate_size") or _nas_width(float(ffn["ffn_mult"]), hidden))
        feed = FeedForward("dense", width)
    return Layers(1, mixer, feed, extra)


def _nas_width(multiplier: float, hidden: int) -> int:
    """Return the FFN width of a multiplier: two thirds, rounded up to a multiple of 256."""
    width = int(2 * multiplier * hidden / 3)
    return -(-width // 256) * 256


def read_nas(c: Config) -> Model:
    """Nemotron NAS (Puzzle): attention and FFN of each layer chosen apart, some left out."""
    layers = layer_count(c)
    heads = c.count("num_attention_heads")
    blocks = c.per_layer("block_configs", layers)
    if not blocks:
        raise c.error("key 'block_configs' is missing")
    c.value("num_key_value_heads", "intermediate_size", "attention_bias", "mlp_bias")
    stack = []
    for number, block in enumerate(blocks):
        try:
            stack.append(_nas_layer(c, heads, block))
        except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
            raise c.error(f"key 'block_configs' entry {number}: {error!r}") from None
    return assemble(c, stack)


def read_minimax_m3(c: Config) -> Model:
    """MiniMax-M3: an indexer picks blocks of keys for grouped-query attention."""
    layers, hidden = layer_count(c), hidden_size(c)
    full = gqa(c, qk_norm=True, output_gate=c.flag("attention_output_gate"))
    c.value("use_qk_norm", "qk_norm_type")
    sparse = c.section("sparse_attention_config")
    chosen = sparse.per_layer("sparse_attention_freq", layers) if sparse else [0] * layers
    index: dict[str, Any] = {}
    if sparse:
        block = sparse.count("sparse_block_size")
        more = sparse.count("sparse_init_block", default=0, minimum=0)
        more += sparse.count("sparse_local_block", default=0, minimum=0)
        index = {
            "kind": "sparse", "index_heads": sparse.count("sparse_num_index_heads"),
            "index_head_dim": sparse.count("sparse_index_dim"),
            "index_topk": block * (sparse.count("sparse_topk_blocks") + more),
        }
        sparse.value("use_sparse_attention", "sparse_disable_index_value", "sparse_score_type")
    # `count` takes the head weights of DeepSeek's indexer; this one has none
    less = -hidden * int(index.get("index_heads", 0))
    picked = replace(full, **index, extra_matrices=less)
    ffn = experts(c, router_bias=c.flag("use_routing_bias", default=True))
    c.value("intermediate_size", "n_shared_experts")
    plain = dense(c, "dense_intermediate_size")
    stack = [
        Layers(1, picked if s else full, ffn if moe else plain)
        for s, moe in zip(chosen, moe_layers(c, layers), strict=True)
    ]
    return with_mtp(c, assemble(c, stack))
