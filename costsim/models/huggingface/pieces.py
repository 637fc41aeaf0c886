"""Pieces that many families share: attention, feed-forward, layer patterns, the whole model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.huggingface.config import Config

MAX_LAYERS = 10_000

def layer_count(c: Config) -> int:
    """Return the number of decoder layers.

    Raises:
        InputError: there are more than a model could have, which is a slip.
    """
    layers = c.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if layers > MAX_LAYERS:
        raise c.error(f"num_hidden_layers = {layers}: must be at most {MAX_LAYERS}")
    return layers


def hidden_size(c: Config) -> int:
    """Return the hidden size."""
    return c.count("hidden_size", "n_embd", "d_model")


def gqa(c: Config, **changes: Any) -> Attention:
    """Return full softmax attention with the heads of a config.

    Args:
        c: the config.
        changes: fields of `Attention` that the family sets.

    Raises:
        InputError: query heads are not a multiple of KV heads, or do not divide the hidden size
            where the config gives no head size.
    """
    heads = changes.pop("heads", 0) or c.count("num_attention_heads", "n_head", "n_heads")
    kv_heads = changes.pop("kv_heads", 0) or c.count(
        "num_key_value_heads", "num_kv_heads", default=heads
    )
    head_dim = changes.pop("head_dim", 0) or _head_dim(c, heads)
    if heads % kv_heads:
        raise c.error(
            f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {kv_heads}"
        )
    v_head_dim = changes.pop("v_head_dim", 0) or head_dim
    kind = changes.pop("kind", "full")
    return Attention(kind, heads, kv_heads, head_dim, v_head_dim, **changes)


def _head_dim(c: Config, heads: int) -> int:
    given = c.count("head_dim", "attention_head_dim", "kv_channels", default=0)
    if given:
        return given
    hidden = hidden_size(c)
    if hidden % heads:
        raise c.error(
            f"hidden_size = {hidden} is not a multiple of num_attention_heads = {heads},"
            " and there is no head_dim"
        )
    return hidden // heads


def mla(c: Config, **changes: Any) -> Attention:
    """Return latent attention (DeepSeek-V2, arXiv:2405.04434).

    ``num_key_value_heads`` of such a config is not the size of the cache, and ``head_dim``, where
    there is one, not that of the queries; both are read and left alone.
    """
    heads = c.count("num_attention_heads")
    c.value("num_key_value_heads", "head_dim")
    nope = c.count("qk_nope_head_dim")
    rope = c.count("qk_rope_head_dim", minimum=0)
    return replace(
        Attention(
            "mla", heads, heads, nope + rope, c.count("v_head_dim"),
            q_lora_rank=c.count("q_lora_rank", default=0, minimum=0),
            kv_lora_rank=c.count("kv_lora_rank"), rope_head_dim=rope, nope_head_dim=nope,
        ),
        **changes,
    )


def dense(c: Config, *keys: str, gated: bool = True, bias: bool = False) -> FeedForward:
    """Return a dense FFN whose width is under the first of some keys."""
    return FeedForward("dense", c.count(*(keys or ("intermediate_size",))), gated, bias=bias)


def experts(c: Config, **changes: Any) -> FeedForward:
    """Return an MoE FFN, whatever the family calls its keys.

    Raises:
        InputError: more experts per token than experts.
    """
    count = c.count("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    top_k = c.count(
        "num_experts_per_tok", "experts_per_token", "num_experts_per_token", "top_k_experts",
        "num_selected_experts", "moe_top_k", "moe_k",
    )
    c.value("experts_per_token", "num_experts_per_tok")
    if top_k > count:
        raise c.error(f"top_k = {top_k} experts per token is above the {count} experts")
    width = changes.pop("width", 0) or c.count(
        "moe_intermediate_size", "expert_intermediate_size", "intermediate_size"
    )
    groups = c.count("n_group", "num_expert_group", default=0, minimum=0)
    top_groups = c.count("topk_group", default=0, minimum=0)
    if groups <= 1 or c.text("topk_method") == "greedy":
        groups = top_groups = 0
    shared = changes.pop("shared_width", None)
    return FeedForward(
        "moe", width, experts=count, top_k=top_k, groups=groups, top_groups=top_groups,
        shared_width=_shared_width(c, width) if shared is None else shared, **changes,
    )


def _shared_width(c: Config, width: int) -> int:
    explicit = c.count(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
        "shared_intermediate_size", "share_expert_dim", default=0, minimum=0,
    )
    number = c.count("n_shared_experts", "num_shared_experts", "num_shared_expert",
                     "moe_num_shared_experts", default=0, minimum=0)
    return explicit or number * width


def moe_layers(c: Config, layers: int) -> list[bool]:
    """Return for each layer whether its FFN is a mixture of experts."""
    named = c.per_layer("mlp_layer_types", layers)
    if named:
        c.value("first_k_dense_replace", "moe_layer_freq", "moe_layers_enum")
        return [kind != "dense" for kind in named]
    if c.has("moe_layers_enum"):
        listed = {int(i) for i in c.text("moe_layers_enum").split(",")}
        return [i in listed for i in range(layers)]
    if c.has("interleave_moe_layer_step") or c.has("moe_layers"):
        step = c.count("interleave_moe_layer_step", default=1, minimum=0)
        chosen = c.items("moe_layers") or range(step - 1, layers, step) if step else []
        return [i in set(chosen) for i in range(layers)]
    if c.has("decoder_sparse_step") or c.has("mlp_only_layers"):
        step = c.count("decoder_sparse_step", default=1)
        skipped = set(c.items("mlp_only_layers"))
        return [i not in skipped and (i + 1) % step == 0 for i in range(layers)]
    return _after_dense_layers(c, layers)


def _after_dense_layers(c: Config, layers: int) -> list[bool]:
    first = c.count("first_k_dense_replace", "moe_layer_start_index", default=0, minimum=0)
    frequency = c.value("moe_layer_freq")
    if isinstance(frequency, list):
        chosen = c.per_layer("moe_layer_freq", layers)
        return [bool(moe) for moe in chosen]
    step = c.count("moe_layer_freq", "moe_layer_interval", default=1)
    return [i >= first and i % step == 0 for i in range(layers)]


def group(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    """Return layers of the same kind counted together, in the order they first appear."""
    counts: dict[Layers, int] = {}
    for each in layers:
        kind = replace(each, count=1)
        counts[kind] = counts.get(kind, 0) + each.count
    return tuple(replace(kind, count=count) for kind, count in counts.items())


def assemble(
    c: Config, layers: Iterable[Layers], *, tied: bool = False, **changes: Any
) -> Model:
    """Return the model around some layers.

    Args:
        c: the config of the decoder.
        layers: one entry per layer, or already counted.
        tied: whether head and embedding share weights where the config does not say.
        changes: fields of `Model` that the family sets.
    """
    hidden = hidden_size(c)
    return Model(
        **{
            "name": "",
            "title": "",
            "hidden_size": hidden,
            "vocab_size": c.count("vocab_size"),
            "layers": group(layers),
            "tied_embeddings": c.flag("tie_word_embeddings", default=tied),
            "max_context": c.count(
                "max_position_embeddings", "n_positions", "max_seq_len", "seq_length",
                default=0, minimum=0,
            ),
            "extra_parameters": hidden,
            **changes,
        }
    )


def mtp_parameters(model: Model, layer: int) -> int:
    """Return the weights of a DeepSeek-style MTP module around one layer.

    One layer of the model's last kind, a projection of 2d to d and three norms
    (DeepSeek-V3, arXiv:2412.19437, section 2.2); embedding and head are shared.
    """
    hidden = model.hidden_size
    return layer + 2 * hidden * hidden + 3 * hidden
