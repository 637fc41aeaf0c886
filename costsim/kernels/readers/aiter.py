"""Reader of the tuned-kernel tables of AITER, AMD's kernel library (ROCm/aiter, MIT).

Its folder ``aiter/configs`` holds what the library's tuner found: for each shape the fastest kernel
and its time ``us``. Files are told by their columns: ``M, N, K`` (GEMM), ``token, model_dim,
inter_dim, expert, topk`` (experts), ``num_v_heads … duration`` (gated delta rule, one token).

What was timed: the kernels' own time on the device, from a profile of some fifty to a hundred calls
whose arguments rotate through copies (cold caches, but for matrices so small that all copies stay
in the last-level cache), outliers left out, no gap between launches. Experts are the grouped
matrix products under random routing; sorting the tokens and requantising between are not in it.
``inter_dim`` is one rank's, ``expert`` one rank's where experts are spread.

Left out: rows that the tuner marked as failed (0, −1, inf, blank) or as numerically wrong; rows
whose own ``tflops`` contradict their time, most of which were copied from another number of tokens
to choose a kernel there; single rows that would beat the device's peak rate or bandwidth; data
types without a counterpart here; and rows of other devices.
A shape that several files hold counts with its fastest time, which is what the library runs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.plausible import without_glitches
from costsim.kernels.table import KernelTable, fastest, make_table
from costsim.loading import read_text

Row = Mapping[str, str]
Types = tuple[str, str]  # weights, activations
Rows = list[tuple[dict[str, Any], float]]  # shape, µs
Found = Iterator[tuple[dict[str, Any], float, float]]  # shape, µs, rate over stated rate
SOFTWARE = "aiter"
# Compute units -> architecture, for parts whose number of units another architecture has too.
ARCHITECTURES = {304: "gfx942", 80: "gfx942", 256: "gfx950"}
# Architectures of which one number of units was sold, so that rows may leave it out.
ONE_PART = {"gfx950": 256}
# Share of wrong elements from which the tuner calls a kernel wrong.
MOST_WRONG = 0.05
# How far a row may be from its own tflops (two digits after the point): a share, and TFLOP/s. A
# file whose rows are mostly off by more than the factor has a mistake of units.
ROUNDING, LAST_DIGIT, UNIT_MISTAKE = 0.05, 0.01, 1.5

_PLAIN: dict[str, str] = {
    "bfloat16": "bf16", "float16": "bf16", "float8_e4m3fn": "fp8", "float8_e4m3fnuz": "fp8",
    "int8": "int8", "float4_e2m1fn_x2": "mxfp4", "int4": "int4"}
# Quantisation of experts -> the weights' type, by their plain type; the rest is left out.
_EXPERTS: dict[str, dict[str, str]] = {
    "No": {"bf16": "bf16"}, "per_1x128": {"fp8": "fp8_block"}, "per_Token": {"fp8": "fp8"},
    "per_Tensor": {"fp8": "fp8"}, "per_1x32": {"mxfp4": "mxfp4", "int4": "int4"}}
# Part of a file's name -> types, where its rows name none. The first that fits counts. Until
# October 2025 no row of a8w8 files did: the tuners' code of then multiplies int8, and fp8 where the
# weights are shuffled beforehand.
_BY_NAME: tuple[tuple[str, Types], ...] = (
    ("a4w4", ("mxfp4", "mxfp4")), ("a8w8_blockscale", ("fp8_block", "fp8")),
    ("a8w8_bpreshuffle", ("fp8", "fp8")), ("a8w8_tuned", ("int8", "int8")))

_GEMM = {"cu_num", "M", "N", "K", "us"}
_MOE = {"cu_num", "token", "model_dim", "inter_dim", "expert", "topk", "q_type", "us"}
_DELTA_SIZES = {"batch": "b", "new_tokens": "sq", "key_heads": "num_k_heads",
                "value_heads": "num_v_heads", "key_dim": "head_k_dim", "value_dim": "head_v_dim"}
_DELTA = {"arch", "state_dtype", "duration", *_DELTA_SIZES.values()}
_OPERATORS: tuple[tuple[str, set[str]], ...] = (
    ("gemm", _GEMM), ("moe", _MOE), ("linear_attention", _DELTA))


def kind_of(head: str) -> str:
    """Return the operator of a file by its first line, ``""`` where it is none of AITER's."""
    names = set(head.strip().split(","))
    # Batched products (a column B or b) are no GEMM that the engine model asks for.
    if names & {"B", "shared_expert_id"}:
        return ""
    return next((operator for operator, needed in _OPERATORS if needed <= names), "")


def aiter_files(folder: Path) -> list[Path]:
    """Return AITER's tables in a folder and the folders in it."""
    return [p for p in sorted(folder.rglob("*tuned*.csv"))
            if kind_of(read_text(p).split("\n", 1)[0])]


def read_aiter(
    files: Iterable[Path], hardware: Hardware, version: str = ""
) -> list[KernelTable]:
    """Return the rows of one device, a table for each operator and its data types.

    Args:
        files: AITER's tables.
        hardware: the device; its compute units choose the rows (``cu_num``).
        version: of the library, such as a commit.

    Raises:
        InputError: a value that is no number, times that are not in µs, rows of several
            architectures with as many units, or no row of the device at all.
    """
    found: dict[str, Rows] = {}
    seen: set[str] = set()
    for path in files:
        text = read_text(path)
        operator = kind_of(text.split("\n", 1)[0])
        rows: list[Row] = list(csv.DictReader(io.StringIO(text)))
        seen |= {_device(r) for r in rows}
        ours = [r for r in rows if _is_of(path, r, hardware)]
        believed = _believed(path, list(_READERS[operator](path, ours)))
        found.setdefault(operator, []).extend(believed)
    tables = [table for operator, rows in sorted(found.items()) if rows
              for table in without_glitches(_table(operator, rows, version), hardware)]
    if not tables:
        raise InputError(f"AITER's tables hold no row of {hardware.name} "
                         f"({hardware.compute_units:g} compute units), but "
                         f"those of {', '.join(sorted(seen)) or 'nothing'}")
    return tables


def _device(row: Row) -> str:
    """Return what a row says about its device, such as ``gfx942 304``."""
    return " ".join(x for x in (row.get("gfx") or row.get("arch"), row.get("cu_num")) if x)


def _table(operator: str, rows: Rows, version: str) -> KernelTable:
    names = rows[0][0]
    shape = {name: np.array([each[name] for each, _ in rows]) for name in names}
    seconds = np.array([time for _, time in rows]) * 1e-6
    return fastest(make_table(operator, shape, seconds, software=SOFTWARE, version=version,
                              source="ROCm/aiter, tuned-kernel tables"))


def _is_of(path: Path, row: Row, hardware: Hardware) -> bool:
    """Return whether a row was measured on the hardware."""
    units = int(hardware.compute_units)
    architecture = row.get("gfx") or row.get("arch") or ""
    if row.get("cu_num"):
        mine = _number(path, row, "cu_num") == units
        return mine and (not architecture or architecture == ARCHITECTURES.get(units, architecture))
    return ONE_PART.get(architecture) == units


def _gemm(path: Path, rows: list[Row]) -> Found:
    for row in rows:
        types, time = _gemm_types(path, row), _time(path, row, "us")
        if types is None or time is None:
            continue
        m, n, k = (_number(path, row, name) for name in ("M", "N", "K"))
        shape = {"m": m, "n": n, "k": k, "dtype": types[0], "activation": types[1]}
        yield shape, time, _agreement(path, row, 2.0 * m * n * k, time)


def _gemm_types(path: Path, row: Row) -> Types | None:
    """Return the types of a GEMM, from its row or its file's name; None where unknown."""
    named = row.get("q_dtype_w") or (row.get("dtype") if "outdtype" in row else None)
    if named:
        plain = _plain(named)
        return (plain, plain) if plain in ("bf16", "fp8", "int8") else None
    if "mxscale" in path.name:
        return None
    return next((types for part, types in _BY_NAME if part in path.name), None)


def _moe(path: Path, rows: list[Row]) -> Found:
    for row in rows:
        weights = _EXPERTS.get(row["q_type"].rpartition(".")[2], {}).get(
            _plain(row["q_dtype_w"]) or "")
        activations, time = _plain(row["q_dtype_a"]), _time(path, row, "us")
        if weights is None or activations is None or time is None:
            continue
        names = ("token", "model_dim", "inter_dim", "topk", "expert", "use_g1u1")
        tokens, hidden, width, top_k, experts, gated = (_number(path, row, n) for n in names)
        shape = {"tokens": tokens, "hidden": hidden, "width": width, "top_k": top_k,
                 "experts": experts, "gated": gated, "dtype": weights, "activation": activations}
        flop = (6.0 if gated else 4.0) * tokens * top_k * hidden * width
        yield shape, time, _agreement(path, row, flop, time)


def _agreement(path: Path, row: Row, flop: float, time: float) -> float:
    """Return the rate that a row's time means over the rate it states.

    1 where rounding explains the difference, NaN where it states none.
    """
    stated = _number(path, row, "tflops") if row.get("tflops") else 0.0
    if stated <= 0.0:
        return np.nan
    rate = flop / time * 1e-6
    close = abs(rate - stated) <= ROUNDING * rate + LAST_DIGIT
    return 1.0 if close else rate / stated


def _believed(path: Path, rows: list[tuple[dict[str, Any], float, float]]) -> Rows:
    """Return the rows whose time and stated rate agree, or of which only one is given."""
    ratios = [ratio for _, _, ratio in rows if np.isfinite(ratio)]
    if ratios and abs(np.log(np.median(ratios))) > np.log(UNIT_MISTAKE):
        raise InputError(f"{path}: times and 'tflops' disagree by a factor of "
                         f"{np.median(ratios):.3g}; are the times in microseconds?")
    return [(shape, time) for shape, time, ratio in rows if ratio == 1.0 or np.isnan(ratio)]


def _delta_rule(path: Path, rows: list[Row]) -> Found:
    """Yield the recurrence with its state in fp32, as engines keep it."""
    for row in rows:
        time = _time(path, row, "duration")
        if time is None or not row["state_dtype"].endswith("float32"):
            continue
        sizes = {ours: _number(path, row, theirs) for ours, theirs in _DELTA_SIZES.items()}
        yield {**sizes, "kind": "gated_deltanet"}, time, np.nan


_READERS: dict[str, Callable[[Path, list[Row]], Found]] = {
    "gemm": _gemm, "moe": _moe, "linear_attention": _delta_rule}


def _plain(name: str) -> str | None:
    return _PLAIN.get(name.removeprefix("torch."))


def _time(path: Path, row: Row, column: str) -> float | None:
    """Return the time of a kernel that ran and gave right numbers, else None [µs]."""
    if not row[column]:
        return None
    time = _number(path, row, column)
    wrong = [_number(path, row, name) for name in ("errRatio", "err_ratio") if row.get(name)]
    right = time > 0.0 and np.isfinite(time) and all(w <= MOST_WRONG for w in wrong)
    return time if right else None


def _number(path: Path, row: Row, column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise InputError(f"{path}: column '{column}': '{row[column]}' is not a number") from None
