"""Kernel tables: measured latencies of one operator, in one format, checked on reading.

A table holds rows of one operator, measured on one device with one version of one software. Its
shape columns carry the names of `Calibration.latency`'s arguments, so a row can be predicted by
passing it on. The CSV format is one row a measurement: ``operator``, the shape columns of that
operator, ``latency_s``, ``spread``, ``device``, ``software``, ``version``, ``source``, ``date``;
columns that an operator does not use stay blank. Several operators may share a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError, unknown_name
from costsim.files import write_atomically
from costsim.loading import read_text

# Sparse attention on a latent cache: the defaults are DeepSeek-V3.2's.
_SPARSE: dict[str, Any] = {
    "index_heads": 64.0, "index_head_dim": 128.0, "topk": 2048.0, "nope_head_dim": 128.0,
    "rope_head_dim": 64.0, "v_head_dim": 128.0, "kv_lora_rank": 512.0, "kv_dtype": "bf16"}
# Shape columns by operator, with the value that a missing column stands for (None: required).
SHAPES: dict[str, dict[str, Any]] = {
    "gemm": {"m": None, "n": None, "k": None, "dtype": "bf16", "activation": "bf16"},
    "attention_prefill": {
        "batch": None, "new_tokens": None, "context": 0.0, "heads": None, "kv_heads": None,
        "head_dim": None, "v_head_dim": None, "window": 0.0, "dtype": "bf16", "kv_dtype": "bf16"},
    "attention_decode": {
        "batch": None, "context": None, "heads": None, "kv_heads": None, "head_dim": None,
        "v_head_dim": None, "window": 0.0, "kv_dtype": "bf16"},
    "mla_prefill": {
        "batch": None, "new_tokens": None, "context": 0.0, "heads": None, "nope_head_dim": 128.0,
        "rope_head_dim": 64.0, "v_head_dim": 128.0, "kv_lora_rank": 512.0, "dtype": "bf16",
        "kv_dtype": "bf16"},
    "mla_decode": {
        "batch": None, "context": None, "heads": None, "kv_lora_rank": 512.0,
        "rope_head_dim": 64.0, "kv_dtype": "bf16"},
    "dsa_prefill": {
        "batch": None, "new_tokens": None, "context": 0.0, "heads": None, **_SPARSE},
    "dsa_decode": {"batch": None, "context": None, "heads": None, **_SPARSE},
    "linear_attention": {
        "batch": None, "new_tokens": None, "key_heads": 0.0, "value_heads": None, "key_dim": None,
        "value_dim": None, "kind": "gated_deltanet"},
    "moe": {
        "tokens": None, "hidden": None, "width": None, "top_k": None, "experts": None,
        "moe_tp": 1.0, "ep": 1.0, "gated": 1.0, "dtype": "bf16", "activation": "bf16",
        "touched": np.nan, "max_load": 1.0},
    "all_reduce": {"ranks": None, "message_bytes": None},
    "all_gather": {"ranks": None, "message_bytes": None},
    "reduce_scatter": {"ranks": None, "message_bytes": None},
    "all_to_all": {"ranks": None, "message_bytes": None},
    "point_to_point": {"message_bytes": None, "across_nodes": 0.0},
    "elementwise": {"bytes": None, "kind": ""},
}
ABOUT = ("device", "software", "version", "source", "date")


@dataclass(frozen=True)
class KernelTable:
    """Measured latencies of one operator.

    Args:
        operator: a key of `SHAPES`.
        shape: column name → one value a row (numbers, or names of data types).
        latency_s: measured times.
        spread: relative standard deviation of each measurement; NaN where unknown.
        device, software, version: what ran; ``source``: where the rows come from; ``date``: ISO.
    """

    operator: str
    shape: Mapping[str, NDArray[Any]]
    latency_s: NDArray[np.float64]
    spread: NDArray[np.float64]
    device: str = ""
    software: str = ""
    version: str = ""
    source: str = ""
    date: str = ""

    def __len__(self) -> int:
        return len(self.latency_s)

    def select(self, rows: NDArray[Any]) -> KernelTable:
        """Return the table of some rows (a mask or indices)."""
        shape = {name: column[rows] for name, column in self.shape.items()}
        return replace(self, shape=shape, latency_s=self.latency_s[rows], spread=self.spread[rows])


def make_table(
    operator: str, shape: Mapping[str, Any], latency_s: Any, spread: Any = np.nan, **about: str
) -> KernelTable:
    """Return a table; missing columns take their default, scalars are spread over the rows.

    Raises:
        InputError: an unknown operator or column, or a column that is missing.
    """
    if operator not in SHAPES:
        raise unknown_name("operator", operator, SHAPES)
    latency = np.asarray(latency_s, float)
    columns: dict[str, NDArray[Any]] = {}
    for name in shape:
        if name not in SHAPES[operator]:
            raise unknown_name(f"shape column of {operator}", name, SHAPES[operator])
    for name, default in SHAPES[operator].items():
        value = shape.get(name, default)
        if value is None:
            raise InputError(f"{operator} table: column '{name}' is missing")
        column = np.asarray(value)
        if column.dtype.kind not in "US":
            column = column.astype(float)
        columns[name] = np.broadcast_to(column, latency.shape).copy()
    wide = np.broadcast_to(np.asarray(spread, float), latency.shape).copy()
    return KernelTable(operator, columns, latency, wide, **about)


def title(table: KernelTable) -> str:
    """Return what an error message calls a table."""
    return f"{table.operator} table of {table.source or table.device or 'unnamed source'}"


def check_table(table: KernelTable) -> KernelTable:
    """Return the table if its rows can be true (`costsim.kernels.plausible` adds the rates).

    Raises:
        InputError: non-positive or non-finite latencies or shapes, or duplicate rows.
    """
    where = title(table)
    bad = ~(np.isfinite(table.latency_s) & (table.latency_s > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{where}: row {row + 1}: latency {table.latency_s[row]:g} s is not "
                         f"positive ({int(bad.sum())} such rows)")
    for name, column in table.shape.items():
        if column.dtype.kind == "f" and (column < 0).any():
            raise InputError(f"{where}: column '{name}' has a negative value")
    repeated = len(table) - len(np.unique(_row_keys(table)))
    if repeated:
        raise InputError(f"{where}: {repeated} duplicate rows (same shape twice)")
    return table


def _row_keys(table: KernelTable) -> NDArray[Any]:
    columns = [np.unique(c, return_inverse=True)[1] for c in table.shape.values()]
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def merge_duplicates(table: KernelTable) -> KernelTable:
    """Return the table with repeated shapes merged into their median; the spread is theirs."""
    keys = _row_keys(table)
    order = np.lexsort((table.latency_s, keys))
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) > 0])
    counts = np.diff(np.r_[starts, len(order)])
    if (counts == 1).all():
        return table
    middle = starts + (counts - 1) // 2
    merged = table.select(order[middle])
    low, high = table.latency_s[order[starts]], table.latency_s[order[starts + counts - 1]]
    spread = np.where(counts > 1, (high - low) / merged.latency_s / 2.0, merged.spread)
    return replace(merged, spread=spread)


def fastest(table: KernelTable) -> KernelTable:
    """Return the table with repeated shapes reduced to their fastest measurement."""
    keys = _row_keys(table)
    order = np.lexsort((table.latency_s, keys))
    return table.select(np.sort(order[np.r_[True, np.diff(keys[order]) > 0]]))


def read_csv(path: Path | str) -> list[KernelTable]:
    """Return the tables of a CSV file in the project's own format, one for each operator and run.

    Raises:
        InputError: a missing or unknown column, a value that is no number, or rows that fail
            `check_table`.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    if not rows or "operator" not in rows[0] or "latency_s" not in rows[0]:
        raise InputError(f"{path}: no rows, or no columns 'operator' and 'latency_s'")
    known = {"operator", "latency_s", "spread", *ABOUT}.union(*SHAPES.values())
    for name in rows[0]:
        if name not in known:
            raise unknown_name(f"column in {path}", str(name), known)
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["operator"], *(row.get(a) or "" for a in ABOUT))
        groups.setdefault(key, []).append(row)
    return [check_table(_table_of(path, key, group)) for key, group in groups.items()]


def _table_of(path: Path | str, key: tuple[str, ...], rows: list[dict[str, str]]) -> KernelTable:
    operator = key[0]
    if operator not in SHAPES:
        raise unknown_name(f"operator in {path}", operator, SHAPES)
    shape: dict[str, Any] = {}
    for name, default in SHAPES[operator].items():
        cells = [row.get(name) or "" for row in rows]
        if not any(cells):
            continue
        shape[name] = (np.array([c or default for c in cells]) if isinstance(default, str)
                       else _numbers(path, name, cells, default))
    latency = _numbers(path, "latency_s", [row["latency_s"] for row in rows], None)
    spread = _numbers(path, "spread", [row.get("spread") or "" for row in rows], np.nan)
    return make_table(operator, shape, latency, spread, **dict(zip(ABOUT, key[1:], strict=True)))


def _numbers(path: Path | str, name: str, cells: list[str], default: Any) -> NDArray[np.float64]:
    try:
        return np.array([float(c) if c or default is None else default for c in cells], float)
    except ValueError:
        wrong = next(c for c in cells if not _is_number(c) and (c or default is None))
        raise InputError(f"{path}: column '{name}': '{wrong}' is not a number") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_csv(path: Path | str, tables: Iterable[KernelTable]) -> Path:
    """Write tables to one CSV file in the project's own format."""
    tables = list(tables)
    used = [n for n in dict.fromkeys(c for t in tables for c in t.shape)]
    names = ["operator", *used, "latency_s", "spread", *ABOUT]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        about = {a: getattr(table, a) for a in ABOUT}
        for i in range(len(table)):
            shape = {n: _cell(c[i]) for n, c in table.shape.items()}
            writer.writerow({"operator": table.operator, **shape,
                             "latency_s": f"{table.latency_s[i]:.6g}",
                             "spread": _cell(table.spread[i]), **about})
    return write_atomically(path, text.getvalue())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    return "" if np.isnan(value) else f"{value:.10g}"
