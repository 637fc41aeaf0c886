"""Reader of the parquet kernel tables in the package ``aiconfigurator-core`` (extra ``silicon``).

The package holds latencies (ms; µs for expert dispatch) by system, family of operators, backend
and version: ``systems/data/<system>/<family>/<backend>/<version>/<operator>_perf.parquet``.
Message sizes of collectives are elements, not bytes. Tables of whole modules (projections and
attention together) and of research operators are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.kernels.calibration import EXCHANGED, LOW_LATENCY, NORMAL
from costsim.kernels.operators import RECURRENT_TOKENS
from costsim.kernels.readers import exchange
from costsim.kernels.readers.routing import balanced_load, power_law_load
from costsim.kernels.table import KernelTable, make_table, merge_duplicates

Columns = dict[str, Any]
ENGINES = ("vllm", "sglang", "trtllm")

# Data type in the tables → (weights, activations).
DTYPES: dict[str, tuple[str, str]] = {
    "bfloat16": ("bf16", "bf16"), "float16": ("bf16", "bf16"), "half": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8"), "fp8_block": ("fp8_block", "fp8"), "nvfp4": ("nvfp4", "nvfp4"),
    "int8_wo": ("int8", "bf16"), "int4_wo": ("int4", "bf16"), "w4a16_mxfp4": ("mxfp4", "bf16"),
    "w4a8_mxfp4_mxfp8": ("mxfp4", "fp8"), "w4afp8": ("int4", "fp8"),
}
# Expert layers without a gate among the measured models: (hidden, inner width, top-k) of
# Nemotron-3 Nano, Super and Ultra, whose experts are squared-ReLU MLPs.
UNGATED = {(2688, 1856, 6), (1024, 2688, 22), (2048, 5120, 22), (1024, 5120, 22)}


def package_folder() -> Path:
    """Return the folder of the tables.

    Raises:
        InputError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.origin:
        raise InputError("kernel tables need the extra 'silicon': pip install 'costsim[silicon]'")
    return Path(spec.origin).parent / "systems" / "data"


def systems() -> list[str]:
    """Return the names of the systems that have tables."""
    return sorted(p.name for p in package_folder().iterdir() if p.is_dir())


def read_silicon(system: str, operators: tuple[str, ...] = ()) -> list[KernelTable]:
    """Return every table of a system, one for each operator, backend and version.

    Args:
        system: such as ``h100_sxm``.
        operators: only these; empty for all.

    Raises:
        InputError: there is no such system, or the extra is not installed.
    """
    folder = package_folder() / system
    if not folder.is_dir():
        raise InputError(f"no kernel tables for system '{system}'; there are {systems()}")
    return [t for t in _tables(folder) if not operators or t.operator in operators]


def _tables(folder: Path) -> Iterator[KernelTable]:
    for path in sorted(folder.glob("*/*/*/*_perf.parquet")):
        reader = _READERS.get(path.name.removesuffix("_perf.parquet"))
        if reader is None:
            continue
        columns = read_columns(path)
        family, backend, version = path.parts[-4], path.parts[-3], path.parts[-2]
        mode = _MODES.get(path.name.removesuffix("_perf.parquet"), "")
        about = {"device": str(columns.get("device", [""])[0]), "software": backend + mode,
                 "version": version, "source": (
                     f"aiconfigurator-core {folder.name}/{family}/{backend}/{version}")}
        for operator, shape, latency in reader(columns):
            table = make_table(operator, shape, latency, **about)
            yield merge_duplicates(table.select(np.flatnonzero(table.latency_s > 0)))


def read_columns(path: Path) -> Columns:
    """Return the columns of a parquet file."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False))
            for name in table.column_names}


Found = Iterator[tuple[str, dict[str, Any], Any]]


def _types(column: Any) -> tuple[Any, Any, Any]:
    """Return weights, activations, and a mask of the types that are known."""
    known = np.isin(column, list(DTYPES))
    pairs = [DTYPES.get(str(c), ("", "")) for c in column]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]), known


def _pick(columns: Columns, rows: Any) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _gemm(c: Columns) -> Found:
    weights, activations, known = _types(c["gemm_dtype"])
    c = _pick(c, known)
    yield "gemm", {"m": c["m"], "n": c["n"], "k": c["k"], "dtype": weights[known],
                   "activation": activations[known]}, c["latency"] * 1e-3


def _window(c: Columns, seen: Any) -> Any:
    """Return the window where it is shorter than the sequence, else 0."""
    window = c.get("window_size", np.zeros(len(seen)))
    return np.where(window < seen, window, 0)


def _attention_prefill(c: Columns) -> Found:
    c = _pick(c, c["beam_width"] == 1)
    window = _window(c, c["isl"] + c["step"])
    yield "attention_prefill", {
        "batch": c["batch_size"], "new_tokens": c["isl"], "context": c["step"],
        "heads": c["num_heads"], "kv_heads": c["num_key_value_heads"], "head_dim": c["head_dim"],
        "v_head_dim": c["head_dim"], "window": window, "dtype": _types(c["attn_dtype"])[0],
        "kv_dtype": _types(c["kv_cache_dtype"])[0]}, c["latency"] * 1e-3


def _attention_decode(c: Columns) -> Found:
    c = _pick(c, c["beam_width"] == 1)
    seen = c["step"] + c["isl"]
    window = _window(c, seen)
    yield "attention_decode", {
        "batch": c["batch_size"], "context": seen, "heads": c["num_heads"],
        "kv_heads": c["num_key_value_heads"], "head_dim": c["head_dim"],
        "v_head_dim": c["head_dim"], "window": window,
        "kv_dtype": _types(c["kv_cache_dtype"])[0]}, c["latency"] * 1e-3


def _mla_prefill(c: Columns) -> Found:
    c = _pick(c, c["isl"] > 1)
    yield "mla_prefill", {
        "batch": c["batch_size"], "new_tokens": c["isl"], "context": c["step"],
        "heads": c["num_heads"], "dtype": _types(c["mla_dtype"])[0],
        "kv_dtype": _types(c["kv_cache_dtype"])[0]}, c["latency"] * 1e-3


def _mla_decode(c: Columns) -> Found:
    yield "mla_decode", {
        "batch": c["batch_size"], "context": c["step"] + c["isl"], "heads": c["num_heads"],
        "kv_dtype": _types(c["kv_cache_dtype"])[0]}, c["latency"] * 1e-3


def _moe(c: Columns) -> Found:
    weights, activations, known = _types(c["moe_dtype"])
    known &= c["num_experts"] % c["moe_ep_size"] == 0
    c, weights, activations = _pick(c, known), weights[known], activations[known]
    loads = np.array([_load(*row) for row in zip(
        c["num_tokens"].tolist(), c["topk"].tolist(), c["num_experts"].tolist(),
        c["moe_ep_size"].tolist(), c["distribution"].tolist(), strict=True)])
    shapes = zip(c["hidden_size"].tolist(), c["inter_size"].tolist(), c["topk"].tolist(),
                 strict=True)
    plain = np.char.find(c["kernel_source"].astype(str), "nongated") >= 0
    gated = np.array([s not in UNGATED for s in shapes]) & ~plain
    yield "moe", {
        "tokens": c["num_tokens"], "hidden": c["hidden_size"], "width": c["inter_size"],
        "top_k": c["topk"], "experts": c["num_experts"], "moe_tp": c["moe_tp_size"],
        "ep": c["moe_ep_size"], "gated": gated, "dtype": weights, "activation": activations,
        "touched": loads[:, 0], "max_load": loads[:, 1]}, c["latency"] * 1e-3


def _load(tokens: int, top_k: int, experts: int, ep: int, kind: str) -> tuple[float, float]:
    found = re.fullmatch(r"power_law_([\d.]+)", kind)
    if found:
        return power_law_load(tokens, top_k, experts, ep, float(found[1]))
    return balanced_load(tokens, top_k, experts, ep)


def _all_reduce(c: Columns) -> Found:
    """Yield the rows captured in a graph, where both eager and captured calls were timed."""
    eager = np.char.endswith(c["kernel_source"].astype(str), "_eager")
    c = _pick(c, ~eager) if not eager.all() else c
    yield "all_reduce", {"ranks": c["num_gpus"], "message_bytes": c["message_size"] * 2.0}, (
        c["latency"] * 1e-3)


_NCCL = {"all_reduce": "all_reduce", "all_gather": "all_gather",
         "reduce_scatter": "reduce_scatter", "alltoall": "all_to_all"}


def _nccl(c: Columns) -> Found:
    size = np.where(c["nccl_dtype"] == "int8", 1.0, 2.0)
    for theirs, ours in _NCCL.items():
        rows = c["op_name"] == theirs
        if rows.any():
            yield ours, {"ranks": c["num_gpus"][rows],
                         "message_bytes": (c["message_size"] * size)[rows]}, (
                c["latency"][rows] * 1e-3)


def _scale_matrix(c: Columns) -> Found:
    """Yield fp8 quantisation (two bytes read, one written) as the element-wise kernel it is.

    SGLang's rows are left out: the call that was timed is several unfused kernels.
    """
    c = _pick(c, c["kernel_source"] != "sglang")
    if len(c["m"]):
        yield "elementwise", {"bytes": 3.0 * c["m"] * c["k"]}, c["latency"] * 1e-3


def _gated_deltanet(c: Columns) -> Found:
    yield from _recurrence(c, "gated_deltanet", ("delta_rule",), ("delta_rule",))


def _kimi_delta(c: Columns) -> Found:
    """Yield Kimi delta attention; of its decode kernels the one that is the recurrence alone."""
    yield from _recurrence(c, "kda", ("kda_fwd", "chunk_kda", "flashkda"), ("kda_packed_decode",))


_STATE = {"key_heads": "num_k_heads", "value_heads": "num_v_heads", "key_dim": "head_k_dim",
          "value_dim": "head_v_dim"}


def _recurrence(
    c: Columns, kind: str, chunked: tuple[str, ...], recurrent: tuple[str, ...]
) -> Found:
    """Yield the recurrence alone; the short convolution is a separate, bandwidth-bound kernel.

    Args:
        c: the table's columns.
        kind: of linear attention.
        chunked, recurrent: parts of the names of its kernels in prefill and in decode.
    """
    # Chunked kernels were timed on the shortest prompts too, which they are not handed.
    prefill = (c["phase"] == "context") & (c["seq_len"] > RECURRENT_TOKENS)
    decode = c["phase"] == "generation"
    c = _pick(c, prefill & _named(c, chunked) | decode & _named(c, recurrent))
    if not len(c["phase"]):
        return
    tokens = np.where(c["phase"] == "generation", 1, np.maximum(c["seq_len"], 1))
    shape = {ours: c[theirs] for ours, theirs in _STATE.items()}
    shape |= {"batch": c["batch_size"], "new_tokens": tokens, "kind": np.array([kind])}
    yield "linear_attention", shape, c["latency"] * 1e-3


def _named(c: Columns, parts: tuple[str, ...]) -> Any:
    """Return which rows were run by a kernel with one of the parts in its name."""
    names = c["kernel_source"].astype(str)
    return np.any([np.char.find(names, part) >= 0 for part in parts], axis=0)


# Kernels that an engine runs in one way of spreading experts only, by table.
_MODES = {"wideep_generation_moe": EXCHANGED, "wideep_deepep_ll": LOW_LATENCY,
          "wideep_deepep_normal": NORMAL}
_READERS: dict[str, Callable[[Columns], Found]] = {
    "gemm": _gemm, "context_attention": _attention_prefill,
    "generation_attention": _attention_decode, "context_mla": _mla_prefill,
    "generation_mla": _mla_decode, "moe": _moe, "wideep_generation_moe": _moe,
    "custom_allreduce": _all_reduce, "nccl": _nccl,
    "wideep_deepep_ll": exchange.low_latency, "wideep_deepep_normal": exchange.normal,
    "trtllm_alltoall": exchange.nvlink,
    "gdn": _gated_deltanet, "kda": _kimi_delta, "scale_matrix": _scale_matrix,
}
