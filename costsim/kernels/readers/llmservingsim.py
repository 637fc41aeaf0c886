"""Reader of LLMServingSim's kernel profiles of a serving engine.

A profile is a folder of CSV files for each tensor-parallel degree: ``profile_tp1_dense.csv``
(layer, tokens, µs), ``profile_tp1_per_sequence.csv`` (layer, sequences, µs),
``profile_tp1_attention.csv`` (prefill chunk, its cached tokens, decode requests, tokens cached by
each, µs) and ``profile_tp1_moe.csv`` (tokens, activated experts, µs). The files hold no sizes:
they come from the model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.fit import fit, overlaid
from costsim.kernels.table import KernelTable, make_table, merge_duplicates
from costsim.loading import read_text
from costsim.models.architecture import Attention, FeedForward, Model

Columns = dict[str, NDArray[Any]]


def read_llmservingsim(folder: Path | str, tp: int, model: Model) -> list[KernelTable]:
    """Return the tables of a profile: GEMMs, element-wise kernels, attention, experts.

    Args:
        folder: of the profile.
        tp: tensor-parallel degree whose files to read; shapes are those of one rank.
        model: that was profiled (its first layer with attention and its feed-forward).

    Raises:
        InputError: files are missing or malformed.
    """
    folder = Path(folder)
    about = {"device": folder.name.split("-")[0], "software": "vllm",
             "version": _version(folder), "source": f"LLMServingSim {folder.name} tp{tp}"}
    dense = _read(folder / f"profile_tp{tp}_dense.csv")
    heads = _read(folder / f"profile_tp{tp}_per_sequence.csv")
    attention = _read(folder / f"profile_tp{tp}_attention.csv")
    found = [_gemms(dense, heads, tp, model), _elementwise(dense, tp, model),
             *_attention(attention, tp, _mixer(model))]
    experts = folder / f"profile_tp{tp}_moe.csv"
    if experts.is_file():
        found.append(_moe(_read(experts), model))
    return [merge_duplicates(make_table(name, shape, latency, **about))
            for name, shape, latency in found]


def fit_llmservingsim(
    folder: Path | str, tp: int, model: Model, hardware: Hardware,
    base: Calibration | None = None,
) -> Calibration:
    """Return the calibration that reproduces a profile.

    Args:
        folder, tp, model: as in `read_llmservingsim`.
        hardware: the accelerator that was profiled.
        base: where kernels that the profile lacks (collectives) come from.
    """
    tables = read_llmservingsim(folder, tp, model)
    own = fit(tables, hardware, name=f"{Path(folder).name}-tp{tp}", engine="vllm")
    return own if base is None else overlaid(base, own)


Found = tuple[str, dict[str, Any], NDArray[np.float64]]


def _mixer(model: Model) -> Attention:
    return next(x.mixer for x in model.layers if isinstance(x.mixer, Attention))


def _ffn(model: Model) -> FeedForward:
    return next(x.ffn for x in model.layers if x.ffn is not None)


def _gemms(dense: Columns, heads: Columns, tp: int, model: Model) -> Found:
    """Return the projections by tokens, and the head by sequences."""
    a, f, d = _mixer(model), _ffn(model), model.hidden_size
    inward = (2 if f.gated else 1) * f.width / tp
    sizes = {
        "qkv_proj": ((a.heads + 2 * max(a.kv_heads, tp)) * a.head_dim / tp, d),
        "o_proj": (d, a.heads * a.v_head_dim / tp),
        "gate_up_proj": (inward, d), "down_proj": (d, f.width / tp)}
    parts = [_rows(dense, name, "tokens", n, k) for name, (n, k) in sizes.items()]
    parts.append(_rows(heads, "lm_head", "sequences", model.vocab_size / tp, d))
    m, n, k, seconds = (np.concatenate(column) for column in zip(*parts, strict=True))
    return "gemm", {"m": m, "n": n, "k": k}, seconds


def _rows(columns: Columns, layer: str, count: str, n: float, k: float) -> tuple[Any, ...]:
    rows = columns["layer"] == layer
    m = columns[count][rows]
    return m, np.full(len(m), n), np.full(len(m), k), columns["time_us"][rows] * 1e-6


def _elementwise(dense: Columns, tp: int, model: Model) -> Found:
    """Return norms, activation, rotary embedding and embedding by the bytes they move."""
    a, f, d = _mixer(model), _ffn(model), model.hidden_size
    inward = (2 if f.gated else 1) * f.width / tp
    rotated = (2.0 * a.heads + a.kv_heads) / tp * a.head_dim
    per_token: Mapping[str, float] = {
        "layernorm": 8.0 * d, "act_fn": 2.0 * (inward + f.width / tp),
        "rotary_emb": 4.0 * rotated, "embedding": 4.0 * d}
    moved, seconds = [], []
    for layer, size in per_token.items():
        rows = dense["layer"] == layer
        moved.append(dense["tokens"][rows] * size)
        seconds.append(dense["time_us"][rows] * 1e-6)
    return "elementwise", {"bytes": np.concatenate(moved)}, np.concatenate(seconds)


def _attention(c: Columns, tp: int, a: Attention) -> list[Found]:
    """Return prefill and decode apart; steps that mix both are left to the sum of the two."""
    sizes = {"heads": a.heads / tp, "kv_heads": max(a.kv_heads / tp, 1.0),
             "head_dim": float(a.head_dim), "v_head_dim": float(a.v_head_dim)}
    p, d = c["n_decode"] == 0, c["prefill_chunk"] == 0
    prefill = {"batch": 1.0, "new_tokens": c["prefill_chunk"][p], "context": c["kv_prefill"][p]}
    decode = {"batch": c["n_decode"][d], "context": c["kv_decode"][d]}
    return [("attention_prefill", {**prefill, **sizes}, c["time_us"][p] * 1e-6),
            ("attention_decode", {**decode, **sizes}, c["time_us"][d] * 1e-6)]


def _moe(c: Columns, model: Model) -> Found:
    f = _ffn(model)
    shape = {"tokens": c["tokens"], "hidden": float(model.hidden_size), "width": float(f.width),
             "top_k": float(f.top_k), "experts": float(f.experts), "gated": float(f.gated),
             "touched": c["activated_experts"]}
    return "moe", shape, c["time_us"] * 1e-6


def _version(folder: Path) -> str:
    path = folder / "profile_meta.yaml"
    if not path.is_file():
        return ""
    lines = [x for x in read_text(path).splitlines() if x.startswith("vllm_version:")]
    return lines[0].split(":", 1)[1].strip() if lines else ""


def _read(path: Path) -> Columns:
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    if not rows:
        raise InputError(f"{path}: no rows")
    return {name: _column(path, name, [row[name] for row in rows]) for name in rows[0]}


def _column(path: Path, name: str, cells: list[str]) -> NDArray[Any]:
    if name == "layer":
        return np.array(cells)
    try:
        return np.array([float(c) for c in cells])
    except (TypeError, ValueError):
        raise InputError(f"{path}: column '{name}' holds something that is no number") from None
