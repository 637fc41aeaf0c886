"""Bytes that a request keeps in memory: KV cache with its caps, and recurrent states."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.models.architecture import Attention, Layers, LinearAttention, Model

# The sparse indexer keeps its keys in fp8 with one fp32 scale per 128 elements, whatever the
# type of the cache (DeepSeek-V3.2, reference inference code).
_INDEXER_BYTES_PER_ELEMENT = 1 + 4 / 128
# Recurrent states accumulate over the whole context and are kept in fp32 by the engines' default.
_STATE_DTYPE, _CONVOLUTION_DTYPE = "fp32", "bf16"


def kv_elements_per_token(mixer: Attention | LinearAttention | None) -> float:
    """Return the elements one token adds to the cache of one layer (compression included)."""
    if not isinstance(mixer, Attention) or mixer.shares_kv or mixer.cross:
        return 0.0
    if mixer.kind in ("mla", "dsa"):
        per_entry: float = mixer.kv_lora_rank + mixer.rope_head_dim
    else:
        per_entry = mixer.kv_heads * (mixer.head_dim + (0 if mixer.k_is_v else mixer.v_head_dim))
    return per_entry / mixer.kv_compression


def _indexer_bytes_per_token(mixer: Attention) -> float:
    if not mixer.index_heads or mixer.shares_index:
        return 0.0
    return mixer.index_head_dim * _INDEXER_BYTES_PER_ELEMENT / mixer.kv_compression


def layer_kv_bytes_per_token(layers: Layers, dtype: str) -> float:
    """Return the bytes one token adds to the cache of one layer, before any window caps it.

    Args:
        layers: a layer kind.
        dtype: data type of the cache (key of `costsim.dtypes.BYTES_PER_ELEMENT`).
    """
    if not isinstance(layers.mixer, Attention):
        return 0.0
    elements = kv_elements_per_token(layers.mixer)
    return elements * bytes_per_element(dtype) + _indexer_bytes_per_token(layers.mixer)


def layer_kv_bytes(layers: Layers, context: Any, dtype: str) -> Any:
    """Return the bytes that one layer keeps for a request of ``context`` tokens.

    Sliding and chunked layers keep at most ``window`` tokens. A compressed layer (DeepSeek-V4)
    keeps one entry per ``kv_compression`` tokens and the last ``window`` tokens as they are.

    Args:
        layers: a layer kind.
        context: tokens of the request, number or array.
        dtype: data type of the cache.
    """
    mixer = layers.mixer
    per_token = layer_kv_bytes_per_token(layers, dtype)
    if not isinstance(mixer, Attention) or not mixer.window:
        return per_token * np.asarray(context, dtype=float)
    local = np.minimum(context, mixer.window)
    if mixer.kind in ("sliding", "chunked"):
        return per_token * local
    uncompressed = kv_elements_per_token(mixer) * mixer.kv_compression * bytes_per_element(dtype)
    return per_token * np.asarray(context, dtype=float) + uncompressed * local


def kv_bytes_per_token(model: Model, dtype: str | None = None) -> float:
    """Return the KV bytes that one token adds, all layers together, before windows cap it.

    Args:
        model: the model.
        dtype: data type of the cache; None: the one the checkpoint asks for.

    Source: 2·g·dh elements per layer for GQA, kv_lora_rank + qk_rope_head_dim for MLA
    (DeepSeek-V2, arXiv:2405.04434).
    """
    dtype = dtype or model.quantisation.kv
    return sum(each.count * layer_kv_bytes_per_token(each, dtype) for each in model.layers)


def kv_bytes(model: Model, context: Any, dtype: str | None = None) -> Any:
    """Return the KV bytes of a request of ``context`` tokens, windows and compression included.

    Args:
        model: the model.
        context: tokens, number or array.
        dtype: data type of the cache; None: the one the checkpoint asks for.
    """
    dtype = dtype or model.quantisation.kv
    total = sum(each.count * layer_kv_bytes(each, context, dtype) for each in model.layers)
    return total if np.ndim(context) else float(total)


def state_bytes(model: Model) -> float:
    """Return the bytes of recurrent and convolution state per request (linear attention)."""
    total = 0.0
    for each in model.layers:
        mixer = each.mixer
        if isinstance(mixer, LinearAttention):
            channels = 2 * mixer.key_heads * mixer.key_dim + mixer.value_heads * mixer.value_dim
            taps = max(0, mixer.conv_kernel - 1)
            state = mixer.state_elements * bytes_per_element(_STATE_DTYPE)
            total += each.count * (
                state + taps * channels * bytes_per_element(_CONVOLUTION_DTYPE)
            )
    return total
