"""Arithmetic of one token through a model, by layer and context."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model
from costsim.models.parameters import layer_parameters

# Multiply-adds per state element and token: the delta rule reads the state, corrects it and reads
# it again (Gated DeltaNet, KDA); Mamba-2 and lightning attention update and read once.
_STATE_PASSES = {"gated_deltanet": 3, "kda": 3, "mamba2": 2, "lightning": 2}


def attended_tokens(mixer: Attention, context: Any) -> Any:
    """Return how many cached entries a token reads at a context.

    Args:
        mixer: softmax attention.
        context: tokens of the request so far, itself included; number or array.
    """
    entries = np.asarray(context, dtype=float)
    if mixer.kind == "sliding":
        return np.minimum(entries, mixer.window)
    if mixer.kind == "chunked":  # a token stands on average in the middle of its chunk
        return np.minimum(entries, 0.5 * (mixer.window + 1))
    far = entries / mixer.kv_compression
    if mixer.index_topk:
        far = np.minimum(far, mixer.index_topk)
    near = np.minimum(entries, mixer.window) if mixer.window else 0.0
    return np.minimum(far + near, entries)


def _attention_flop(mixer: Attention, context: Any, absorbed: bool) -> Any:
    tokens = attended_tokens(mixer, context)
    if mixer.kind in ("mla", "dsa") and absorbed:
        per_pair = 2 * mixer.kv_lora_rank + mixer.rope_head_dim
    else:
        per_pair = mixer.head_dim + mixer.v_head_dim
    flop = 2.0 * mixer.heads * per_pair * tokens
    if mixer.index_heads and not mixer.shares_index:
        scanned = np.asarray(context, dtype=float) / mixer.kv_compression
        flop = flop + 2.0 * mixer.index_heads * mixer.index_head_dim * scanned
    return flop


def _mixer_flop(mixer: Attention | LinearAttention | None, context: Any, absorbed: bool) -> Any:
    if isinstance(mixer, Attention):
        return _attention_flop(mixer, context, absorbed)
    if isinstance(mixer, LinearAttention):
        return 2.0 * _STATE_PASSES[mixer.kind] * mixer.state_elements
    return 0.0


def _small_parameters(layers: Layers) -> int:
    """Weights of a mixer or FFN that multiply no matrix: its norms and biases."""
    mixer, ffn, small = layers.mixer, layers.ffn, 0
    if isinstance(mixer, Attention):
        small += 2 * mixer.head_dim if mixer.qk_norm else 0
        small += mixer.q_lora_rank + mixer.kv_lora_rank
    if isinstance(ffn, FeedForward) and ffn.router_bias:
        small += ffn.experts
    return small


def layer_flop_per_token(
    model: Model, layers: Layers, context: Any = 0, absorbed: bool = False
) -> Any:
    """Return the FLOP of one token through one layer of a kind.

    Two for each weight used in a matrix product, and 2·h·(dh + dv) for each token attended to.

    Args:
        model: the model.
        layers: one of ``model.layers``.
        context: tokens of the request so far, number or array.
        absorbed: MLA in its decode form, which works on the latent (2·r + rope per pair and
            head), instead of the expanded one.

    Source: Kaplan et al., arXiv:2001.08361, table 1.
    """
    part = layer_parameters(model, layers)
    matrices = part.active - part.norms - _small_parameters(layers)
    return 2.0 * matrices + _mixer_flop(layers.mixer, context, absorbed)


def flop_per_token(
    model: Model, context: Any = 0, head: bool = True, absorbed: bool = False
) -> Any:
    """Return the FLOP of one token through the model.

    Args:
        model: the model.
        context: tokens of the request so far, itself included; number or array.
        head: with the LM head (prefill needs it for the last token only).
        absorbed: as in `layer_flop_per_token`.
    """
    total = 2.0 * model.vocab_size * model.hidden_size if head else 0.0
    for each in model.layers:
        total = total + each.count * layer_flop_per_token(model, each, context, absorbed)
    return total if np.ndim(context) else float(total)
