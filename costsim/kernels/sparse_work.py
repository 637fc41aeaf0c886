"""Work of sparse attention on a latent cache (DeepSeek-V3.2, arXiv:2512.02556, section 2).

What lies between the projections of such a layer counts as one kernel: an indexer scores every
cached token with a few small fp8 heads, the best ``topk`` are picked, and the heads attend to
those in absorbed form, with the two products that lead into the latent space and out of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.kernels.work import TILE_ROWS, Work, attended_pairs

# The indexer multiplies at the fp8 rate, twice that of the heads.
_INDEX_FLOP = 0.5
# Scores are fp32, written once and read once. In prefill a row of them spans the keys of all
# requests of the pass, and what it may not see is blanked (DeepGEMM's fp8_mqa_logits).
_SCORE_BYTES = 4.0


def dsa_decode_work(
    batch: Any, context: Any, heads: Any, index_heads: Any, index_head_dim: Any, topk: Any,
    nope_head_dim: Any, rope_head_dim: Any, v_head_dim: Any, kv_lora_rank: Any,
    kv_dtype: str = "bf16",
) -> Work:
    """Return the work of one decoded token of each request.

    Args:
        batch: tokens that are decoded; context: cached tokens of each.
        heads: query heads.
        index_heads, index_head_dim: of the indexer; no heads: the layer takes another's choice.
        topk: tokens that a query attends to at most.
        nope_head_dim, rope_head_dim, v_head_dim, kv_lora_rank: of latent attention.
        kv_dtype: of the cache; the indexer's is fp8.
    """
    batch, context = np.asarray(batch, float), np.asarray(context, float)
    seen, index = np.minimum(context, topk), np.asarray(index_heads, float)
    latent = kv_lora_rank + rope_head_dim
    absorbed = heads * (nope_head_dim + v_head_dim) * kv_lora_rank
    scores = 2.0 * batch * index * index_head_dim * context
    flop = (2.0 * batch * (heads * seen * (latent + kv_lora_rank) + absorbed)
            + _INDEX_FLOP * scores)
    moved = (batch * seen * latent * bytes_per_element(kv_dtype) + 2.0 * absorbed
             + (index > 0) * batch * context * (index_head_dim + 2.0 * _SCORE_BYTES)
             + batch * heads * (latent + kv_lora_rank) * 2.0)
    return Work(flop, moved, batch * np.ceil(seen / 64.0))


def dsa_prefill_work(
    batch: Any, new_tokens: Any, context: Any, heads: Any, index_heads: Any, index_head_dim: Any,
    topk: Any, nope_head_dim: Any, rope_head_dim: Any, v_head_dim: Any, kv_lora_rank: Any,
    kv_dtype: str = "bf16",
) -> Work:
    """Return the work of a causal chunk of each request.

    Where no query can see more than ``topk`` tokens nothing is to be picked, and attention is
    that of dense MLA in expanded form.

    Args:
        batch: requests; new_tokens: of each; context: tokens of each cached before.
        heads and the rest: as in `dsa_decode_work`.
    """
    batch, q = np.asarray(batch, float), np.asarray(new_tokens, float)
    whole, index = q + context, np.asarray(index_heads, float)
    pairs, picked = (batch * attended_pairs(q, context, w) for w in (0, topk))
    key, latent = nope_head_dim + rope_head_dim, kv_lora_rank + rope_head_dim
    absorbed = 2.0 * heads * (nope_head_dim + v_head_dim) * kv_lora_rank
    dense = 2.0 * heads * (key + v_head_dim) * pairs + batch * whole * absorbed
    scores = 2.0 * index * index_head_dim * pairs
    sparse = (2.0 * heads * (latent + kv_lora_rank) * picked + batch * q * absorbed
              + _INDEX_FLOP * scores)
    cache = batch * whole * latent * bytes_per_element(kv_dtype)
    expanded = cache + batch * (whole + q) * heads * (key + v_head_dim) * 2.0
    blanked = batch * q * batch * whole
    scored = (cache + (index > 0) * ((pairs + blanked) * _SCORE_BYTES
                                     + batch * whole * index_head_dim)
              + batch * q * heads * (latent + kv_lora_rank) * 2.0)
    short = whole <= topk
    return Work(np.where(short, dense, sparse), np.where(short, expanded, scored),
                batch * heads * np.ceil(q / TILE_ROWS))
