"""Work of one kernel call: FLOP, bytes moved and how evenly it spreads over compute units.

All functions broadcast over their array arguments. Shapes are per accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element


@dataclass(frozen=True)
class Work:
    """What one kernel does.

    Args:
        flop: useful floating-point operations.
        bytes: least bytes through main memory (each input read once, each output written once).
        parallelism: independent tiles; with fewer than compute units some of them idle.
        padded_flop: FLOP with partly filled tiles counted as full; equals ``flop`` if not given.
    """

    flop: Any
    bytes: Any
    parallelism: Any = np.inf
    padded_flop: Any = None


# Output tile of a tensor-core GEMM: rows shrink to 16 for small m (the instruction's own height),
# columns stay at 128 (CUTLASS default configurations for Hopper: 64-256 by 128-256).
TILE_ROWS, TILE_COLUMNS, SMALLEST_ROWS = 128.0, 128.0, 16.0


def gemm_work(
    m: Any, n: Any, k: Any, dtype: str = "bf16", activation: str = "bf16",
    tile_rows: float = TILE_ROWS, padding: float = 1.0,
) -> Work:
    """Return the work of (m×k)·(k×n): 2mnk FLOP; weights, inputs and outputs once.

    Args:
        m, n, k: rows of the input, columns of the weights, inner size.
        dtype: of the weights.
        activation: of the input; the output is written in at least two bytes.
        tile_rows: of the output tiles that the work is cut into.
        padding: share of the work in the last tile's missing rows that is done all the same.
    """
    m, n, k = (np.asarray(x, float) for x in (m, n, k))
    # What does not depend on m is put together first: it is small where m is a sweep.
    a = bytes_per_element(activation)
    moved = m * (a * k + max(a, 2.0) * n) + bytes_per_element(dtype) * n * k
    columns, whole = np.ceil(n / TILE_COLUMNS), np.ceil(m / tile_rows)
    filled = computed_rows(m, whole, tile_rows, padding) * (2.0 * columns * TILE_COLUMNS * k)
    return Work(m * (2.0 * n * k), moved, whole * columns, filled)


def computed_rows(
    rows: Any, whole: Any, tile_rows: float = TILE_ROWS, padding: float = 1.0
) -> Any:
    """Return the rows that are computed: the last tile, or a part of it, is filled up.

    Args:
        rows: of the input; where they fill no tile they come in sixteens.
        whole: tiles that they take.
        tile_rows: rows of a tile.
        padding: share of the missing rows that is computed all the same.
    """
    few = np.ceil(rows / SMALLEST_ROWS) * SMALLEST_ROWS
    filled = np.where(rows >= tile_rows, whole * tile_rows, few)
    return filled if padding == 1.0 else rows + padding * (filled - rows)


def attended_pairs(new_tokens: Any, context: Any, window: Any = 0) -> Any:
    """Return query-key pairs of one causal chunk: Σ over the chunk of the tokens each row sees.

    Args:
        new_tokens: q, rows of the chunk.
        context: tokens cached before the chunk.
        window: tokens that a row sees at most; 0 for all.
    """
    q, s = np.asarray(new_tokens, float), np.asarray(context, float)
    full = q * (s + (q + 1.0) / 2.0)
    w = np.where(np.asarray(window, float) > 0, window, np.inf)
    # Rows before the window fills see s + i tokens, the rest see w.
    growing = np.clip(w - s, 0.0, q)
    with np.errstate(invalid="ignore"):
        capped = growing * (s + (growing + 1.0) / 2.0) + np.where(q > growing, w, 0.0) * (
            q - growing
        )
    return np.where(np.isfinite(w), capped, full)


def attention_prefill_work(
    batch: Any, new_tokens: Any, context: Any, heads: Any, kv_heads: Any, head_dim: Any,
    v_head_dim: Any, window: Any = 0, kv_dtype: str = "bf16",
) -> Work:
    """Return the work of flash attention over a causal chunk of each of ``batch`` requests.

    FLOP 2·h·(d_qk + d_v) per query-key pair; Q, K, V, O through memory once (Dao et al. 2022).
    """
    batch, q = np.asarray(batch, float), np.asarray(new_tokens, float)
    pairs = attended_pairs(q, context, window)
    flop = 2.0 * batch * heads * (head_dim + v_head_dim) * pairs
    seen = q + np.minimum(context, np.where(np.asarray(window) > 0, window, np.inf))
    keys = batch * seen * kv_heads * (head_dim + v_head_dim) * bytes_per_element(kv_dtype)
    queries = batch * q * heads * (head_dim + v_head_dim) * 2.0
    return Work(flop, keys + queries, batch * heads * np.ceil(q / TILE_ROWS))


def attention_decode_work(
    batch: Any, context: Any, heads: Any, kv_heads: Any, head_dim: Any, v_head_dim: Any,
    window: Any = 0, kv_dtype: str = "bf16",
) -> Work:
    """Return the work of one decode step: K, V read once per KV head; 2·h·(d_qk + d_v)·s FLOP."""
    batch = np.asarray(batch, float)
    seen = np.minimum(context, np.where(np.asarray(window) > 0, window, np.inf))
    per_token = kv_heads * (head_dim + v_head_dim) * bytes_per_element(kv_dtype)
    flop = 2.0 * batch * heads * (head_dim + v_head_dim) * seen
    queries = batch * heads * (head_dim + v_head_dim) * 2.0
    return Work(flop, batch * seen * per_token + queries, batch * kv_heads * np.ceil(seen / 256))


def mla_prefill_work(
    batch: Any, new_tokens: Any, context: Any, heads: Any, nope_head_dim: Any,
    rope_head_dim: Any, v_head_dim: Any, kv_lora_rank: Any, kv_dtype: str = "bf16",
) -> Work:
    """Return the work of MLA prefill in expanded form (keys of nope + rope, values of v)."""
    batch, q = np.asarray(batch, float), np.asarray(new_tokens, float)
    key = nope_head_dim + rope_head_dim
    flop = 2.0 * batch * heads * (key + v_head_dim) * attended_pairs(q, context)
    latent = batch * (q + context) * (kv_lora_rank + rope_head_dim) * bytes_per_element(kv_dtype)
    expanded = batch * (q + context) * heads * (key + v_head_dim) * 2.0
    queries = batch * q * heads * (key + v_head_dim) * 2.0
    return Work(flop, latent + expanded + queries, batch * heads * np.ceil(q / TILE_ROWS))


def mla_decode_work(
    batch: Any, context: Any, heads: Any, kv_lora_rank: Any, rope_head_dim: Any,
    kv_dtype: str = "bf16",
) -> Work:
    """Return the work of MLA decode in absorbed form: 2·s·(2·r + rope) FLOP per head.

    The latent is shared by all heads and read once (DeepSeek-V2, arXiv:2405.04434, section 2.1).
    """
    batch = np.asarray(batch, float)
    flop = 2.0 * batch * heads * context * (2.0 * kv_lora_rank + rope_head_dim)
    latent = batch * context * (kv_lora_rank + rope_head_dim) * bytes_per_element(kv_dtype)
    queries = batch * heads * (2.0 * kv_lora_rank + rope_head_dim) * 2.0
    return Work(flop, latent + queries, batch * np.ceil(np.asarray(context) / 64.0))


def linear_attention_work(
    batch: Any, new_tokens: Any, value_heads: Any, key_dim: Any, value_dim: Any,
) -> Work:
    """Return the work of a linear-attention mixer's recurrence: state of constant size.

    Six FLOP per state element and token (decay, outer-product update, read-out), the state once
    in and once out per call in fp32, keys, values and queries once in two bytes.
    """
    tokens = np.asarray(batch, float) * new_tokens
    state = value_heads * key_dim * value_dim
    moved = np.asarray(batch, float) * state * 8.0 + tokens * value_heads * (
        2.0 * key_dim + 2.0 * value_dim
    ) * 2.0
    return Work(6.0 * tokens * state, moved, np.asarray(batch, float) * value_heads)


def touched_experts(tokens: Any, top_k: Any, experts: Any) -> Any:
    """Return distinct experts touched under uniform routing: E·(1 − (1 − k/E)^T).

    Each token uses k different experts, so one expert is missed by a token with 1 − k/E.
    """
    e = np.asarray(experts, float)
    share = np.clip(np.asarray(top_k, float) / e, 0.0, 1.0 - 1e-15)
    return e * -np.expm1(np.asarray(tokens, float) * np.log1p(-share))


def moe_work(
    tokens: Any, hidden: Any, width: Any, top_k: Any, experts: Any, moe_tp: Any = 1, ep: Any = 1,
    gated: bool = True, dtype: str = "bf16", activation: str = "bf16", touched: Any = None,
    max_load: Any = 1.0,
) -> Work:
    """Return the work of the routed experts on the slowest rank of a layer.

    Args:
        tokens: tokens entering the layer in the whole expert-parallel group.
        hidden, width: size of the model and inner width of one expert.
        top_k, experts: routed experts per token and in total.
        moe_tp: ways each expert is sliced; ep: ranks the experts are spread over.
        gated: three matrices and not two.
        dtype, activation: of the weights and of the inputs.
        touched: distinct experts touched on the slowest rank; None: uniform routing.
        max_load: token-expert pairs of the slowest rank over the mean.
    """
    tokens = np.asarray(tokens, float)
    if touched is None:
        touched = touched_experts(tokens, top_k, experts) / ep
    pairs = tokens * top_k / ep * max_load
    local = np.asarray(width, float) / moe_tp
    matrices = np.where(gated, 3.0, 2.0)
    per_expert = pairs / np.maximum(touched, 1e-9)
    whole = np.ceil(per_expert / TILE_ROWS)
    a, expert = bytes_per_element(activation), matrices * hidden * local
    moved = touched * (expert * bytes_per_element(dtype)) + pairs * (
        hidden * (a + 2.0) + matrices * local * 2.0)
    tiles = touched * whole * np.ceil(local / TILE_COLUMNS)
    filled = touched * computed_rows(per_expert, whole) * (2.0 * expert)
    return Work(pairs * (2.0 * expert), moved, tiles, filled)


def elementwise_work(bytes: Any) -> Work:
    """Return the work of a kernel that only moves ``bytes``."""
    return Work(0.0, np.asarray(bytes, float))
