"""One attention layer: projections, attention over the cache, output, for each kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.kernels.projections import latent_expansion, latent_inward, rotated_bytes
from costsim.models.architecture import Attention, LinearAttention
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Tokens, Types

# Sparse attention picks the best-scored tokens with a radix select: a histogram and a filter twice
# over the scores in fp32 (SGLang's measured modules on B200 take 17 to 32 us more than their
# projections, scores and attention with 16 to 64 requests).
_SELECTION_PASSES, _SCORE_BYTES = 4, 4.0


def score_type(types: Types) -> str:
    """Return the type that attention computes in: the activations', bf16 at the narrowest."""
    return types.activation if bytes_per_element(types.activation) > 2 else "bf16"


def local_kv_heads(kv_heads: int, tp: Any) -> Any:
    """Return KV heads per rank; with more ranks than heads they are replicated."""
    return np.maximum(kv_heads / np.asarray(tp, float), 1.0)


def add_attention(
    queue: Queue, machine: Machine, a: Attention, hidden: int, tokens: Tokens, tp: Any, cp: Any,
    types: Types, count: int,
) -> None:
    """Add ``count`` softmax-attention layers to a queue.

    Args:
        queue: where to add.
        machine: calibrated hardware.
        a: the attention.
        hidden: d.
        tokens: of one attention group.
        tp, cp: tensor- and context-parallel ranks.
        types: data types.
        count: layers of this kind.
    """
    if a.kind in ("mla", "dsa"):
        if _add_mla(queue, machine, a, hidden, tokens, tp, cp, types, count):
            return
    else:
        _add_grouped(queue, machine, a, hidden, tokens, tp, cp, types, count)
    heads, kv = a.heads / np.asarray(tp, float), local_kv_heads(a.kv_heads, tp)
    moved = rotated_bytes(tokens.all, heads, kv, a.head_dim)
    queue.add("rope and cache write", machine("elementwise", bytes=moved), count, tokens.some,
              "tokens")


def _gemm(machine: Machine, types: Types, m: Any, n: Any, k: Any) -> Any:
    return machine("gemm", m=m, n=n, k=k, dtype=types.weight, activation=types.activation)


def _add_grouped(
    queue: Queue, machine: Machine, a: Attention, hidden: int, tokens: Tokens, tp: Any, cp: Any,
    types: Types, count: int,
) -> None:
    heads = a.heads / np.asarray(tp, float)
    kv = local_kv_heads(a.kv_heads, tp)
    query_from = a.q_lora_rank or hidden
    inward = (0 if a.shares_kv else kv * (a.head_dim + (0 if a.k_is_v else a.v_head_dim)))
    gate = heads * a.v_head_dim if a.output_gate else 0.0
    some = tokens.some
    if a.q_lora_rank:
        queue.add("qkv projection", _gemm(machine, types, tokens.all, a.q_lora_rank + inward,
                                          hidden), count, some, "tokens")
        queue.add("qkv projection", _gemm(machine, types, tokens.all, heads * a.head_dim + gate,
                                          query_from), count, some, "tokens")
    else:
        width = heads * a.head_dim + inward + gate
        queue.add("qkv projection", _gemm(machine, types, tokens.all, width, hidden), count, some,
                  "tokens")
    side = _side_weights(a, hidden)
    if side > 0:
        queue.add("indexer", _gemm(machine, types, tokens.all, side / hidden, hidden), count, some,
                  "tokens")
    _add_softmax(queue, machine, a, tokens, heads, kv, cp, types, count)
    _add_output(queue, machine, a, hidden, tokens, heads / cp, types, count)


def _side_weights(a: Attention, hidden: int) -> int:
    """Return weights of the indexer's projections, compressors and gates, on every rank."""
    index = 0
    if a.index_heads and not a.shares_index:
        query = (a.q_lora_rank or hidden) * a.index_heads * a.index_head_dim
        index = query + hidden * (a.index_head_dim + a.index_heads)
    return index + a.extra_matrices


def _add_output(
    queue: Queue, machine: Machine, a: Attention, hidden: int, tokens: Tokens, heads: Any,
    types: Types, count: int,
) -> None:
    some, width = tokens.some, heads * a.v_head_dim
    if a.output_lora_rank:
        groups = max(1, a.output_groups)
        queue.add("output projection", _gemm(machine, types, tokens.all, a.output_lora_rank,
                                             width), count, some, "tokens")
        width = groups * a.output_lora_rank
    queue.add("output projection", _gemm(machine, types, tokens.all, hidden, width), count, some,
              "tokens")


def seen_tokens(a: Attention, context: Any) -> Any:
    """Return the cache entries a decoding query reads: windows, top-k and compression applied."""
    context = np.asarray(context, float)
    entries = context / a.kv_compression
    if a.index_topk:
        entries = np.minimum(entries, a.index_topk)
    if a.kind in ("sliding", "chunked") and a.window:
        average = a.window if a.kind == "sliding" else 0.5 * a.window
        return np.minimum(context, average)
    if a.kv_compression > 1 and a.window:
        entries = entries + np.minimum(context, a.window)
    return entries


def _prefill_window(a: Attention, tokens: Tokens) -> Any:
    """Return the window of the prefill kernel; sparse kinds read at most top-k entries."""
    if a.kv_compression > 1:
        middle = np.asarray(tokens.prefill_context, float) + 0.5 * np.asarray(tokens.prefill_tokens)
        entries = np.maximum(1.0, middle / a.kv_compression)
        return a.window + np.minimum(entries, a.index_topk or np.inf)
    if a.kind == "sliding":
        return a.window
    if a.kind == "chunked":
        return max(1, a.window // 2)
    return a.index_topk


def _add_softmax(
    queue: Queue, machine: Machine, a: Attention, tokens: Tokens, heads: Any, kv: Any, cp: Any,
    types: Types, count: int,
) -> None:
    shared = {"heads": heads, "kv_heads": kv, "head_dim": a.head_dim, "v_head_dim": a.v_head_dim}
    prefill = machine("attention_prefill", batch=tokens.prefill_requests,
                      new_tokens=tokens.prefill_tokens, context=tokens.prefill_context,
                      window=_prefill_window(a, tokens), dtype=score_type(types),
                      kv_dtype=types.kv, **shared)
    queue.add("attention (prefill)", prefill, count / np.asarray(cp, float),
              tokens.prompts, "prompts")
    seen = seen_tokens(a, tokens.decode_context) / np.asarray(cp, float)
    decode = machine("attention_decode", batch=tokens.decode_requests, context=seen, window=0,
                     kv_dtype=types.kv, **{**shared, "heads": heads * tokens.decode_width})
    queue.add("attention (decode)", decode, count * np.asarray(tokens.context_spread),
              tokens.decodes, "decodes")
    if a.index_heads and not a.shares_index:
        _add_indexer(queue, machine, a, tokens, cp, count)


def _add_indexer(
    queue: Queue, machine: Machine, a: Attention, tokens: Tokens, cp: Any, count: int
) -> None:
    """Score every cached token with the small fp8 indexer heads (DeepSeek-V3.2)."""
    dim = {"heads": a.index_heads, "kv_heads": 1, "head_dim": a.index_head_dim, "v_head_dim": 0}
    entries = np.asarray(tokens.decode_context, float) / a.kv_compression / np.asarray(cp, float)
    decode = machine("attention_decode", batch=tokens.decode_requests, context=entries, window=0,
                     kv_dtype="fp8", **dim)
    queue.add("indexer", decode, count, tokens.decodes, "decodes")
    scores = tokens.decode * entries * _SCORE_BYTES
    queue.add("index selection", machine("elementwise", bytes=scores), count * _SELECTION_PASSES,
              tokens.decodes, "decodes")
    prefill = machine("attention_prefill", batch=tokens.prefill_requests,
                      new_tokens=tokens.prefill_tokens, window=0, dtype="fp8", kv_dtype="fp8",
                      context=np.asarray(tokens.prefill_context, float) / a.kv_compression, **dim)
    queue.add("indexer", prefill, count, tokens.prompts, "prompts")


def _add_mla(
    queue: Queue, machine: Machine, a: Attention, hidden: int, tokens: Tokens, tp: Any, cp: Any,
    types: Types, count: int,
) -> bool:
    """Add latent attention; return whether rotation and the write to the cache are in it."""
    heads = a.heads / np.asarray(tp, float)
    key, some = a.nope_head_dim + a.rope_head_dim, tokens.some
    index = 0 if a.shares_index else a.index_heads
    gate = heads * a.v_head_dim if a.output_gate else 0.0
    for product in latent_inward(hidden, heads, key, a.kv_lora_rank + a.rope_head_dim,
                                 a.q_lora_rank, index, a.index_head_dim, gate):
        queue.add("qkv projection", _gemm(machine, types, tokens.all, product.n, product.k),
                  count, some, "tokens")
    whole = bool(a.index_topk) and machine.calibration.measured("dsa_decode")
    if whole:
        _add_sparse_latent(queue, machine, a, tokens, heads, index, cp, types, count)
    else:
        _add_latent_attention(queue, machine, a, tokens, heads, cp, types, count)
        if index:
            _add_indexer(queue, machine, a, tokens, cp, count)
    _add_output(queue, machine, a, hidden, tokens, heads / cp, types, count)
    return whole


def _add_sparse_latent(
    queue: Queue, machine: Machine, a: Attention, tokens: Tokens, heads: Any, index: int, cp: Any,
    types: Types, count: int,
) -> None:
    """Add sparse attention as it was measured: all that lies between the projections at once."""
    ranks = np.asarray(cp, float)
    shape = {"heads": heads, "index_heads": index, "index_head_dim": a.index_head_dim,
             "topk": a.index_topk, "nope_head_dim": a.nope_head_dim,
             "rope_head_dim": a.rope_head_dim, "v_head_dim": a.v_head_dim,
             "kv_lora_rank": a.kv_lora_rank, "kv_dtype": types.kv}
    prefill = machine("dsa_prefill", batch=tokens.prefill_requests,
                      new_tokens=tokens.prefill_tokens, context=tokens.prefill_context, **shape)
    queue.add("attention (prefill)", prefill, count / ranks, tokens.prompts, "prompts")
    decode = machine("dsa_decode", batch=tokens.decode,
                     context=np.asarray(tokens.decode_context, float) / ranks, **shape)
    queue.add("attention (decode)", decode, count * np.asarray(tokens.context_spread),
              tokens.decodes, "decodes")


def _add_latent_attention(
    queue: Queue, machine: Machine, a: Attention, tokens: Tokens, heads: Any, cp: Any,
    types: Types, count: int,
) -> None:
    expand, rank = latent_expansion(heads, a.nope_head_dim, a.v_head_dim, a.kv_lora_rank)
    rows = tokens.prefill + np.where(tokens.prompts, tokens.prefill_requests, 0.0) * np.asarray(
        tokens.prefill_context, float)
    queue.add("latent expansion", _gemm(machine, types, rows, expand, rank), count,
              tokens.prompts, "prompts")
    window: dict[str, Any] = {"context": tokens.prefill_context}
    if a.index_topk:
        # Each query reads top-k entries: a chunk costs like one with that much context.
        window["context"] = np.minimum(tokens.prefill_context, a.index_topk)
    prefill = machine("mla_prefill", batch=tokens.prefill_requests,
                      new_tokens=tokens.prefill_tokens, heads=heads, dtype=score_type(types),
                      nope_head_dim=a.nope_head_dim, rope_head_dim=a.rope_head_dim,
                      v_head_dim=a.v_head_dim, kv_lora_rank=a.kv_lora_rank, kv_dtype=types.kv,
                      **window)
    queue.add("attention (prefill)", prefill, count / np.asarray(cp, float),
              tokens.prompts, "prompts")
    # Absorbed projections in decode: the same weights as the expansion, once per step.
    queue.add("latent expansion", _gemm(machine, types, tokens.decode, expand, rank),
              count, tokens.decodes, "decodes")
    seen = seen_tokens(a, tokens.decode_context) / np.asarray(cp, float)
    decode = machine("mla_decode", batch=tokens.decode_requests, context=seen,
                     heads=heads * tokens.decode_width, kv_lora_rank=a.kv_lora_rank,
                     rope_head_dim=a.rope_head_dim, kv_dtype=types.kv)
    queue.add("attention (decode)", decode, count * np.asarray(tokens.context_spread),
              tokens.decodes, "decodes")


def add_linear_attention(
    queue: Queue, machine: Machine, a: LinearAttention, hidden: int, tokens: Tokens, tp: Any,
    types: Types, count: int,
) -> None:
    """Add ``count`` linear-attention or state-space layers: projections and the recurrence."""
    ranks = np.asarray(tp, float)
    some = tokens.some
    outward = a.value_heads * a.value_dim
    inward = max(a.parameters / hidden - outward, 1.0)
    queue.add("qkv projection", _gemm(machine, types, tokens.all, inward / ranks, hidden), count,
              some, "tokens")
    queue.add("output projection", _gemm(machine, types, tokens.all, hidden, outward / ranks),
              count, some, "tokens")
    dims = {"key_heads": np.maximum(a.key_heads / ranks, 1.0), "value_heads": a.value_heads / ranks,
            "key_dim": a.key_dim, "value_dim": a.value_dim, "kind": a.kind}
    prefill = machine("linear_attention", batch=tokens.prefill_requests,
                      new_tokens=tokens.prefill_tokens, **dims)
    queue.add("linear attention", prefill, count, tokens.prompts, "prompts")
    decode = machine("linear_attention", batch=tokens.decode_requests,
                     new_tokens=tokens.decode_width, **dims)
    queue.add("linear attention", decode, count, tokens.decodes, "decodes")
