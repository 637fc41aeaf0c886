"""A model as plain data for ``costsim model show``: layers by kind, weights, cache, arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

from costsim.dtypes import bytes_per_element
from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model
from costsim.models.count import (
    active_parameters,
    flop_per_token,
    kv_bytes,
    kv_bytes_per_token,
    layer_parameters,
    parameters,
    state_bytes,
)

CONTEXTS = (1, 1024, 8192, 32768, 131072)


def weight_bytes(model: Model) -> dict[str, float]:
    """Return the bytes of the weights by part, as the checkpoint stores them.

    Norms, routers and encoders are kept in 16 bit whatever the rest is stored in.
    """
    counted, types = parameters(model), model.quantisation
    plain = 2.0
    return {
        "attention": counted.part("attention") * bytes_per_element(types.attention),
        "ffn": (counted.part("ffn") + counted.part("shared")) * bytes_per_element(types.ffn),
        "experts": counted.part("experts") * bytes_per_element(types.experts),
        "router": counted.part("router") * plain,
        "embedding": counted.embedding * bytes_per_element(types.embedding),
        "head": counted.head * bytes_per_element(types.head),
        "norms": (counted.part("norms") + counted.other) * plain,
        "encoders": counted.encoders * plain,
    }


def attention_words(mixer: Attention | LinearAttention | None) -> str:
    """Return one line about a mixer, such as ``"full, 64 heads, 8 KV heads of 128"``."""
    if mixer is None:
        return "none"
    if isinstance(mixer, LinearAttention):
        return (
            f"{mixer.kind}, {mixer.value_heads} heads, state {mixer.key_dim} x {mixer.value_dim}"
        )
    if mixer.kind in ("mla", "dsa"):
        latent = f"{mixer.kv_lora_rank} + {mixer.rope_head_dim}"
        words = f"{mixer.kind}, {mixer.heads} heads, latent {latent}"
    else:
        words = f"{mixer.kind}, {mixer.heads} heads, {mixer.kv_heads} KV heads of {mixer.head_dim}"
    words += f", window {mixer.window}" if mixer.window else ""
    words += f", {mixer.kv_compression} tokens an entry" if mixer.kv_compression > 1 else ""
    words += f", top {mixer.index_topk} entries" if mixer.index_topk else ""
    return words + (" (cache of an earlier layer)" if mixer.shares_kv else "")


def ffn_words(ffn: FeedForward | None) -> str:
    """Return one line about an FFN, such as ``"256 experts of 2048, top 8, shared 2048"``."""
    if ffn is None or ffn.kind == "none":
        return "none"
    if ffn.kind == "dense":
        return f"dense, width {ffn.width}" + ("" if ffn.gated else ", no gate")
    words = f"{ffn.experts} experts of {ffn.width}, top {ffn.top_k}"
    words += f", shared {ffn.shared_width}" if ffn.shared_width else ""
    words += f", {ffn.top_groups} of {ffn.groups} groups" if ffn.groups else ""
    return words + (f", latent {ffn.latent_size}" if ffn.latent_size else "")


def _layer_row(model: Model, layers: Layers) -> dict[str, Any]:
    counted = layer_parameters(model, layers)
    return {
        "count": layers.count,
        "mixer": attention_words(layers.mixer),
        "ffn": ffn_words(layers.ffn),
        "parameters": counted.total,
        "active_parameters": counted.active,
        "by_part": dataclasses.asdict(counted),
    }


def describe(model: Model, contexts: tuple[int, ...] = CONTEXTS) -> dict[str, Any]:
    """Return what there is to say about a model as plain data (dicts, lists, numbers, text).

    Args:
        model: the model.
        contexts: context lengths (tokens) at which cache and arithmetic are given; those above
            the model's own limit are left out.
    """
    counted = parameters(model)
    limit = model.max_context or max(contexts)
    wanted = [context for context in contexts if context <= limit]
    return {
        "name": model.name,
        "title": model.title,
        "family": model.family,
        "provenance": model.provenance,
        "source": model.source,
        "released": model.released,
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "max_context": model.max_context,
        "layer_count": sum(counted.counts),
        "layers": [_layer_row(model, each) for each in model.layers],
        "total_parameters": counted.total,
        "active_parameters": counted.active,
        "active_parameters_without_embedding": active_parameters(model, embedding=False),
        "embedding_parameters": counted.embedding,
        "head_parameters": counted.head,
        "encoder_parameters": counted.encoders,
        "mtp_layers": model.mtp_layers,
        "mtp_parameters": model.mtp_parameters,
        "quantisation": dataclasses.asdict(model.quantisation),
        "weight_bytes": weight_bytes(model),
        "kv_bytes_per_token": kv_bytes_per_token(model),
        "state_bytes_per_request": state_bytes(model),
        "by_context": [
            {
                "context": context,
                "kv_bytes": kv_bytes(model, context),
                "flop_per_token": flop_per_token(model, context),
            }
            for context in wanted
        ],
        "encoders": [dataclasses.asdict(encoder) for encoder in model.encoders],
        "ignored": list(model.ignored),
    }
