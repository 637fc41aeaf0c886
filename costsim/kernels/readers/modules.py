"""Reader of the tables of whole latent-attention layers in ``aiconfigurator-core``.

A module holds a layer's projections and what lies between them. Rows say which model was run; its
sizes are in `SIZES`. The host started the kernels of prompts one by one, so that short ones take
as long as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError
from costsim.kernels.readers.silicon import DTYPES, Columns, package_folder, read_columns


@dataclass(frozen=True)
class LatentSizes:
    """Sizes of a model's latent attention; ``index_heads`` 0: attention is dense."""

    hidden: int
    q_lora_rank: int
    nope_head_dim: int
    v_head_dim: int
    index_heads: int = 0
    index_head_dim: int = 128
    rope_head_dim: int = 64
    kv_lora_rank: int = 512
    topk: int = 2048


_GLM = LatentSizes(6144, 2048, 192, 256, 32)
# From the models' config.json on Hugging Face.
SIZES: dict[str, LatentSizes] = {
    "deepseek-ai/DeepSeek-V3": LatentSizes(7168, 1536, 128, 128),
    "deepseek-ai/DeepSeek-V3.2": LatentSizes(7168, 1536, 128, 128, 64),
    **dict.fromkeys(("zai-org/GLM-5", "zai-org/GLM-5-FP8", "zai-org/GLM-5.2",
                     "zai-org/GLM-5.2-FP8", "nvidia/GLM-5.2-NVFP4"), _GLM),
}
# File of a module → (operator that is left beside the projections, whether it decodes).
FILES = {
    "mla_context_module": ("mla_prefill", False), "mla_generation_module": ("mla_decode", True),
    "dsa_context_module": ("dsa_prefill", False), "dsa_generation_module": ("dsa_decode", True),
}
# A prompt is timed by its kernels, not by the host that starts them, from this multiple of what
# prompts of few tokens take on the same path.
HOST_FREE, FEW_TOKENS = 1.5, 128
# Where no token is to be picked SGLang runs dense attention, unless the prompts of a pass exceed a
# workspace that the engine's own chunks never fill: those rows are left out.
DENSE = "dense"
# End of the names of layers that take another's choice of tokens.
SKIPPING = "skip_indexer"
# SGLang captures graphs up to this many decoding requests; above, the host starts each kernel.
LARGEST_GRAPH = {"sglang": 512}


@dataclass(frozen=True)
class Modules:
    """Measured layers of one model with one data type of its weights.

    Args:
        operator: what is left beside the projections.
        decode: whether requests decode.
        sizes: of the model; skips_index: the layer takes another's choice of tokens.
        weights, activations, kv_dtype: data types.
        batch, new_tokens, context, heads: one value a row, of one rank.
        latency_s: measured.
        engine, version, source: what ran.
    """

    operator: str
    decode: bool
    sizes: LatentSizes
    skips_index: bool
    weights: str
    activations: str
    kv_dtype: str
    batch: NDArray[Any]
    new_tokens: NDArray[Any]
    context: NDArray[Any]
    heads: NDArray[Any]
    latency_s: NDArray[np.float64]
    engine: str
    version: str
    source: str

    @property
    def index_heads(self) -> int:
        """Heads of the indexer that ran."""
        return 0 if self.skips_index else self.sizes.index_heads


def read_modules(system: str) -> list[Modules]:
    """Return the measured modules of a system.

    Raises:
        InputError: there is no such system, or the extra is not installed.
    """
    folder = package_folder() / system
    if not folder.is_dir():
        raise InputError(f"no kernel tables for system '{system}'")
    paths = sorted(folder.glob("*/*/*/*_module_perf.parquet"))
    return [m for path in paths for m in _modules(path)]


def _modules(path: Path) -> Iterator[Modules]:
    name = path.name.removesuffix("_perf.parquet")
    if name not in FILES:
        return
    operator, decode = FILES[name]
    c = read_columns(path)
    engine, version = path.parts[-3], path.parts[-2]
    rows = c["latency"] > 0
    rows &= (c["batch_size"] <= LARGEST_GRAPH.get(engine, np.inf)) | (not decode)
    if not decode:
        rows &= _without_host(c) & ~_past_workspace(c) & ~_skipping(c)
    columns = ("model", "op_name", "gemm_type", "kv_cache_dtype")
    codes = np.unique(np.stack([c[n].astype(str) for n in columns], 1), axis=0)
    for model, op_name, gemm, kv in codes.tolist():
        sizes, types = SIZES.get(model), DTYPES.get(gemm)
        here = rows & np.all([c[n] == v for n, v in zip(
            columns, (model, op_name, gemm, kv), strict=True)], axis=0)
        if sizes is None or types is None or not here.any():
            continue
        tokens = np.ones(here.sum()) if decode else c["isl"][here].astype(float)
        yield Modules(operator, decode, sizes, op_name.endswith(SKIPPING), *types,
                      DTYPES[kv][0], c["batch_size"][here].astype(float), tokens,
                      c["step"][here].astype(float), c["num_heads"][here].astype(float),
                      c["latency"][here] * 1e-3, engine, version,
                      "aiconfigurator-core " + "/".join(path.parts[-5:-1]))


def _without_host(c: Columns) -> NDArray[np.bool_]:
    """Return which prompts take visibly longer than starting their kernels does."""
    names = ("kernel_source", "model", "gemm_type", "kv_cache_dtype")
    codes = np.stack([np.unique(c[n].astype(str), return_inverse=True)[1] for n in names], 1)
    path = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    few, time = c["batch_size"] * c["isl"] <= FEW_TOKENS, c["latency"]
    floors = np.array([np.median(time[few & (path == p)]) if (few & (path == p)).any() else 0.0
                       for p in range(path.max() + 1)])
    return np.asarray(time >= HOST_FREE * floors[path])


def _skipping(c: Columns) -> NDArray[np.bool_]:
    """Return which layers take another's choice of tokens.

    In prefill they were timed on arbitrary choices: the very layer with its indexer takes a third
    of their time on H200.
    """
    return np.asarray(np.char.endswith(c["op_name"].astype(str), SKIPPING))


def _past_workspace(c: Columns) -> NDArray[np.bool_]:
    kernel = c["kernel_source"].astype(str)
    dense = np.char.find(kernel, DENSE) >= 0
    return np.asarray(dense.any() & ~dense & (c["isl"] + c["step"] <= LatentSizes.topk))
