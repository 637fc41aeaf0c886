"""Reader of Vidur's profiles: linear operators by tokens and ranks, and all-reduce by size.

``mlp.csv`` has columns ``time_stats.<operator>.<statistic>`` in ms with the model's sizes in each
row; ``all_reduce.csv`` has ``time_stats.all_reduce.<statistic>`` in ms, workers and size in bytes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError
from costsim.kernels.table import KernelTable, make_table, merge_duplicates
from costsim.loading import read_text

Columns = dict[str, NDArray[np.float64]]


def read_vidur_mlp(path: Path | str, device: str = "") -> list[KernelTable]:
    """Return the GEMMs and the element-wise kernels of an ``mlp.csv`` (bf16 or fp16 weights).

    Raises:
        InputError: a column is missing or holds no number.
    """
    c = _read(path)
    tp, d, f = c["num_tensor_parallel_workers"], c["n_embd"], c["n_expanded_embd"]
    head_dim = d / c["n_head"]
    sizes = {
        "attn_pre_proj": ((c["n_head"] + 2 * c["n_kv_head"]) * head_dim / tp, d),
        "attn_post_proj": (d, d / tp), "mlp_up_proj": (2 * f / tp, d), "mlp_down_proj": (d, f / tp)}
    moved = {"input_layernorm": 4.0 * d, "post_attention_layernorm": 4.0 * d,
             "mlp_act": 6.0 * f / tp, "add": 6.0 * d}
    gemms = [(c["num_tokens"], n, k, *_time(c, name)) for name, (n, k) in sizes.items()]
    m, n, k, seconds, spread = (np.concatenate(x) for x in zip(*gemms, strict=True))
    rows = [(c["num_tokens"] * size, *_time(c, name)) for name, size in moved.items()]
    size, time, wide = (np.concatenate(x) for x in zip(*rows, strict=True))
    about = {"device": device, "software": "vidur", "source": Path(path).name}
    tables = (make_table("gemm", {"m": m, "n": n, "k": k}, seconds, spread, **about),
              make_table("elementwise", {"bytes": size}, time, wide, **about))
    return [merge_duplicates(table) for table in tables]


def read_vidur_all_reduce(path: Path | str, device: str = "") -> list[KernelTable]:
    """Return the all-reduce of an ``all_reduce.csv`` among the ranks of one machine.

    Rows with fewer devices per node than workers went over several nodes' network: left out.

    Raises:
        InputError: a column is missing or holds no number.
    """
    c = _read(path)
    seconds, spread = _time(c, "all_reduce")
    inside = c["num_workers"] == c["devices_per_node"]
    seconds, spread = seconds[inside], spread[inside]
    shape = {"ranks": c["num_workers"][inside], "message_bytes": c["size"][inside]}
    table = make_table("all_reduce", shape, seconds, spread, device=device, software="vidur",
                       source=Path(path).name)
    return [merge_duplicates(table)]


def _time(c: Columns, name: str) -> tuple[Any, Any]:
    """Return the median [s] and the relative spread of an operator."""
    median = c[f"time_stats.{name}.median"] * 1e-3
    return median, c[f"time_stats.{name}.std"] * 1e-3 / np.maximum(median, 1e-12)


class _Columns(dict[str, Any]):
    def __init__(self, path: Path | str, columns: dict[str, Any]) -> None:
        super().__init__(columns)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self.path}: column '{name}' is missing")


def _read(path: Path | str) -> Columns:
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        try:
            columns[name] = np.array([float(row[name]) for row in rows])
        except (TypeError, ValueError):
            continue  # text columns (device, collective) are not needed
    return _Columns(path, columns)
