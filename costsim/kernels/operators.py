"""What each operator needs to be priced: its work, its rate, its data types and its features.

Features are the log2 coordinates in which the correction to the physics is interpolated. They
are chosen so that each depends on few arguments and stays small when those broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from costsim.dtypes import rate_of
from costsim.kernels import work
from costsim.kernels.efficiency import COLLECTIVES, Efficiency
from costsim.kernels.sparse_work import dsa_decode_work, dsa_prefill_work
from costsim.kernels.work import Work

Shape = Mapping[str, Any]

_WORK: dict[str, Callable[..., Work]] = {
    "gemm": work.gemm_work,
    "attention_prefill": work.attention_prefill_work,
    "attention_decode": work.attention_decode_work,
    "mla_prefill": work.mla_prefill_work,
    "mla_decode": work.mla_decode_work,
    "dsa_prefill": dsa_prefill_work,
    "dsa_decode": dsa_decode_work,
    "linear_attention": work.linear_attention_work,
    "moe": work.moe_work,
    "elementwise": work.elementwise_work,
}
# Arguments that only choose the rate or the kernel.
_UNUSED: dict[str, tuple[str, ...]] = {
    "attention_prefill": ("dtype",),
    "mla_prefill": ("dtype",),
    "linear_attention": ("kind", "key_heads"),
    "elementwise": ("kind",),
}


def operator_work(operator: str, shape: Shape) -> Work:
    """Return the work of a call."""
    unused = _UNUSED.get(operator, ())
    return _WORK[operator](**{k: v for k, v in shape.items() if k not in unused})


def work_on(operator: str, shape: Shape, kind: str, e: Efficiency | None = None) -> Work:
    """Return the work of a call as a kind of hardware sees it.

    Tiles of a hundred rows and whole waves of them are how GPUs and TPUs work; a core takes a few
    rows at a time, so on a CPU nothing is padded.

    Args:
        operator, shape: of the call.
        kind: of the hardware.
        e: says what the kernel does beyond the useful work: under masks, in partly filled tiles.
    """
    if operator == "gemm" and e is not None:
        done = work.gemm_work(**shape, tile_rows=e.tile_rows, padding=e.padding)
    else:
        done = operator_work(operator, shape)
    unskipped = 0.0 if e is None else e.unskipped
    if unskipped > 0.0 and np.max(shape.get("window", 0)) > 0:
        done = _with_hidden(done, operator_work(operator, {**shape, "window": 0.0}), unskipped)
    if kind != "cpu":
        return done
    padded = None if unskipped == 0.0 else done.padded_flop
    if operator == "attention_prefill" and e is not None and e.masked > 0.0:
        padded = _unmasked(done.flop if padded is None else padded, shape, e.masked)
    return Work(done.flop, done.bytes, padded_flop=padded)


def _unmasked(flop: Any, shape: Shape, share: float) -> Any:
    """Return the work of causal attention with a share of the pairs that the mask hides."""
    q = np.asarray(shape["new_tokens"], float)
    seen = work.attended_pairs(q, shape["context"], shape.get("window", 0))
    return flop * (1.0 + share * q * (q - 1.0) / 2.0 / np.maximum(seen, 1.0))


def _with_hidden(seen: Work, whole: Work, unskipped: float) -> Work:
    """Return the work with a share of what the window hides; useful FLOP stay those seen."""
    flop = seen.flop + unskipped * (whole.flop - seen.flop)
    moved = seen.bytes + unskipped * (whole.bytes - seen.bytes)
    return Work(seen.flop, moved, seen.parallelism, flop)


def completed(operator: str, shape: Shape) -> Shape:
    """Return the shape with the touched experts filled in (uniform routing where not given)."""
    if operator != "moe":
        return shape
    touched = shape.get("touched")
    if touched is None:
        touched = work.touched_experts(shape["tokens"], shape["top_k"], shape["experts"])
        touched = touched / shape.get("ep", 1)
    return {**shape, "touched": np.maximum(touched, 1e-9)}


def rate_key(operator: str, shape: Shape) -> str:
    """Return the key of the peak rate an operator computes at."""
    if operator in ("gemm", "moe"):
        return rate_of(shape.get("dtype", "bf16"), shape.get("activation", "bf16"))
    if operator in ("attention_prefill", "mla_prefill"):
        return rate_of(shape.get("dtype", "bf16"), shape.get("dtype", "bf16"))
    return "bf16"


def fastest_rate_key(operator: str, shape: Shape) -> str:
    """Return the key of the fastest rate that a kernel may use: fp8 on an fp8 cache."""
    narrow = variant(operator, shape).removesuffix(WINDOWED).endswith("fp8")
    narrow = narrow and operator not in ("gemm", "moe")
    return "fp8" if narrow else rate_key(operator, shape)


def _plain(dtype: str) -> str:
    """Return the data type whose kernels run at the same speed."""
    return {"fp16": "bf16", "tf32": "fp32"}.get(dtype, dtype)


def variant(operator: str, shape: Shape) -> str:
    """Return the name of the kernel that data types (and kind) choose, such as ``fp8:bf16``."""
    weights = _plain(shape.get("dtype", "bf16"))
    if operator in ("gemm", "moe"):
        activation = _plain(shape.get("activation", "bf16"))
        return f"{weights}:{'fp8' if activation == 'fp8_block' else activation}"
    kv = _plain(shape.get("kv_dtype", "bf16"))
    kv = "fp8" if kv == "fp8_block" else kv
    if operator in ("attention_prefill", "mla_prefill"):
        return f"{weights}:{kv}{_windowed(shape)}"
    if operator in ("dsa_prefill", "dsa_decode"):
        return kv
    if operator in ("attention_decode", "mla_decode"):
        return f"{kv}{_windowed(shape)}"
    if operator == "linear_attention":
        return f"{shape.get('kind', '')}:{_phase(shape['new_tokens'])}"
    if operator == "elementwise":
        return str(shape.get("kind", ""))
    return ""


WINDOWED = "/window"
# Mark of the kernel that multiplies one row, where a table tells it apart (CPU libraries stream a
# matrix through a dot product there, and copy it into panels from two rows on).
ONE_ROW = "/row"


def _windowed(shape: Shape) -> str:
    """Return the mark of kernels that skip what a sliding window hides: they are other code."""
    return WINDOWED if np.max(shape.get("window", 0)) > 0 else ""


# Most new tokens a request that engines hand to the recurrent kernel of linear attention.
RECURRENT_TOKENS = 8


def _phase(new_tokens: Any) -> str:
    """Return which kernel runs: the recurrent one takes a few tokens, the chunked one many."""
    return "decode" if np.max(new_tokens) <= RECURRENT_TOKENS else "prefill"


def _log2(x: Any) -> Any:
    return np.log2(np.maximum(np.asarray(x, float), 1.0))


def _gemm(s: Shape, tile: float = work.TILE_ROWS, padding: float = 1.0) -> tuple[Any, ...]:
    # Many rows come in tiles: one row over may cost a whole tile more.
    m = np.maximum(np.asarray(s["m"], float), 1.0)
    filled = np.where(m > tile, np.ceil(m / tile) * tile, m)
    counted = filled if padding == 1.0 else m + padding * (filled - m)
    return np.log2(counted), _log2(s["n"]), _log2(s["k"]), np.log2(filled / m)


def _hidden(whole: Any, seen: Any, window: Any) -> Any:
    """Return how many octaves of the context a window hides: kernels may read it all the same."""
    return np.log2(whole / seen) if np.max(window) > 0 else 0.0


def _attention_prefill(s: Shape) -> tuple[Any, ...]:
    q = np.maximum(np.asarray(s["new_tokens"], float), 1.0)
    window = s.get("window", 0)
    length = 2.0 * work.attended_pairs(q, s["context"], window) / q
    hidden = _hidden(2.0 * np.asarray(s["context"], float) + q + 1.0, length, window)
    group = np.asarray(s["heads"], float) / s["kv_heads"]
    # Few rows on a long context make this less than one.
    wide = np.log2(np.maximum(np.asarray(s["batch"], float) * s["heads"] * q / length, 2.0**-14))
    return _log2(length), wide, _log2(group), _log2(s["head_dim"]), hidden


def _attention_decode(s: Shape) -> tuple[Any, ...]:
    window, seen = np.asarray(s.get("window", 0), float), np.asarray(s["context"], float)
    hidden: Any = 0.0
    kv_heads: Any = 0.0
    if window.max() > 0:
        whole, seen = seen, np.minimum(seen, np.where(window > 0, window, np.inf))
        # Little is left to read under a window, and how it spreads over the heads shows.
        hidden, kv_heads = np.log2(whole / seen), _log2(s["kv_heads"])
    group = np.asarray(s["heads"], float) / s["kv_heads"]
    return (_log2(np.asarray(s["batch"], float) * s["kv_heads"]), _log2(seen), _log2(group),
            _log2(s["head_dim"]), hidden, kv_heads)


def _mla_prefill(s: Shape) -> tuple[Any, ...]:
    q = np.maximum(np.asarray(s["new_tokens"], float), 1.0)
    length = 2.0 * work.attended_pairs(q, s["context"]) / q
    wide = np.log2(np.maximum(np.asarray(s["batch"], float) * q / length, 2.0**-14))
    return _log2(length), wide, _log2(s["heads"])


def _mla_decode(s: Shape) -> tuple[Any, ...]:
    return _log2(s["batch"]), _log2(s["context"]), _log2(s["heads"])


def _dsa_prefill(s: Shape) -> tuple[Any, ...]:
    q = np.asarray(s["new_tokens"], float)
    whole = q + s["context"]
    # Prompts with tokens to pick run other kernels: an octave lies between, where nothing does.
    length = _log2(whole) + (whole > np.asarray(s["topk"], float))
    return (_log2(np.asarray(s["batch"], float) * q), length, _log2(s["heads"]),
            _log2(s["index_heads"]))


def _dsa_decode(s: Shape) -> tuple[Any, ...]:
    return (_log2(s["batch"]), _log2(s["context"]), _log2(s["heads"]), _log2(s["index_heads"]))


def _linear_attention(s: Shape) -> tuple[Any, ...]:
    return _log2(s["batch"]), _log2(s["new_tokens"]), _log2(s["value_heads"])


def _moe(s: Shape) -> tuple[Any, ...]:
    pairs = np.asarray(s["tokens"], float) * s["top_k"] / s.get("ep", 1) * s.get("max_load", 1.0)
    local = np.asarray(s["width"], float) / s.get("moe_tp", 1)
    # Rows of one expert may fall under one where few tokens meet many ranks.
    rows = np.log2(np.maximum(pairs / s["touched"], 0.125))
    # Kernels that are handed all tokens pay for those of other ranks too: sorting, padding, sums.
    others = _log2(s.get("ep", 1) / np.asarray(s.get("max_load", 1.0), float))
    return rows, _log2(s["touched"]), _log2(s["hidden"]), _log2(local), others


def _collective(s: Shape) -> tuple[Any, ...]:
    return _log2(s["message_bytes"]), _log2(s["ranks"])


def _elementwise(s: Shape) -> tuple[Any, ...]:
    return (_log2(s["bytes"]),)


FEATURES: dict[str, Callable[[Shape], tuple[Any, ...]]] = {
    "gemm": _gemm, "attention_prefill": _attention_prefill,
    "attention_decode": _attention_decode, "mla_prefill": _mla_prefill,
    "mla_decode": _mla_decode, "dsa_prefill": _dsa_prefill, "dsa_decode": _dsa_decode,
    "linear_attention": _linear_attention, "moe": _moe,
    "elementwise": _elementwise, **dict.fromkeys(COLLECTIVES, _collective),
}


def features(operator: str, shape: Shape, e: Efficiency) -> tuple[Any, ...]:
    """Return the log2 features of a call, as a kernel of these efficiencies sees it."""
    if operator == "gemm":
        return _gemm(shape, e.tile_rows, e.padding)
    return FEATURES[operator](shape)


# Most nodes of the correction on each feature; 0 where it does not depend on that feature. Of
# several layouts each kernel takes the one that rows held out like best.
Nodes = tuple[int, ...]
NODES: dict[str, tuple[Nodes, ...]] = {
    "gemm": ((20, 14, 14, 2),),
    "attention_prefill": ((12, 10, 6, 6, 8), (12, 10, 6, 6, 0)),
    "attention_decode": ((15, 12, 8, 6, 6, 0), (15, 12, 8, 6, 0, 5), (15, 12, 8, 6, 0, 0)),
    "mla_prefill": ((18, 12, 8),), "mla_decode": ((12, 17, 8),),
    "dsa_prefill": ((9, 10, 6, 3),), "dsa_decode": ((11, 12, 6, 3),),
    "linear_attention": ((12, 14, 10),), "moe": ((12, 7, 8, 6, 4),), "elementwise": ((20,),),
    **dict.fromkeys(COLLECTIVES, ((23, 6),)),
}

# Features beyond whose measured range a correction does not fade: a kernel that skips what a window
# hides does not come to look like one that reads it.
STEADY: dict[str, tuple[int, ...]] = {"attention_prefill": (4,), "attention_decode": (4,)}
