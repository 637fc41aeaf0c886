"""What a measured attention layer takes beside its projections, as a kernel to be fitted.

The module's time less that of its GEMMs, by the same calibration: scores, selection, attention,
norms, rotation, quantisation and the write to the cache. Predictions put the same GEMMs back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.projections import (
    latent_expansion,
    latent_inward,
    latent_outward,
    rotated_bytes,
)
from costsim.kernels.readers.modules import Modules
from costsim.kernels.table import KernelTable, make_table, merge_duplicates

# Projections are predicted, with an error of their own: modules of which less than this share is
# left say little about it and are left out.
LEAST_REST = 0.25


def rest_tables(
    modules: Iterable[Modules], calibration: Calibration, hardware: Hardware
) -> list[KernelTable]:
    """Return what is left of measured modules, one table an operator, engine and version.

    Args:
        modules: measured layers.
        calibration: of their GEMMs.
        hardware: they ran on.
    """
    parts: dict[tuple[str, str, str, str], list[tuple[dict[str, Any], Any]]] = {}
    for m in modules:
        beside = around_s(m, calibration, hardware)
        rest = m.latency_s - beside
        kept = rest >= LEAST_REST * m.latency_s
        shape = {k: v[kept] if isinstance(v, np.ndarray) else v for k, v in shape_of(m).items()}
        if kept.any():
            key = (m.operator, m.engine, m.version, m.source)
            parts.setdefault(key, []).append((shape, rest[kept]))
    return [_table(key, found, hardware.name) for key, found in parts.items()]


def _table(
    key: tuple[str, str, str, str], parts: list[tuple[dict[str, Any], Any]], device: str
) -> KernelTable:
    operator, engine, version, source = key
    names = parts[0][0]
    shape = {n: np.concatenate([np.broadcast_to(s[n], t.shape) for s, t in parts]) for n in names}
    latency = np.concatenate([t for _, t in parts])
    return merge_duplicates(make_table(operator, shape, latency, device=device, software=engine,
                                       version=version, source=source))


def shape_of(m: Modules) -> dict[str, Any]:
    """Return the shape of the operator that is left of some modules."""
    sizes = m.sizes
    shape: dict[str, Any] = {
        "batch": m.batch, "context": m.context, "heads": m.heads, "kv_dtype": m.kv_dtype,
        "kv_lora_rank": float(sizes.kv_lora_rank), "rope_head_dim": float(sizes.rope_head_dim)}
    if not m.decode:
        shape["new_tokens"] = m.new_tokens
    if not m.decode or sizes.index_heads:
        shape |= {"nope_head_dim": float(sizes.nope_head_dim),
                  "v_head_dim": float(sizes.v_head_dim)}
    if sizes.index_heads:
        shape |= {"index_heads": float(m.index_heads),
                  "index_head_dim": float(sizes.index_head_dim), "topk": float(sizes.topk)}
    return shape


def around_s(m: Modules, calibration: Calibration, hardware: Hardware) -> NDArray[Any]:
    """Return the predicted time of what is priced by itself around the operator.

    These are the modules' projections; of dense attention also the product into the latent space
    or out of it, and rotation with the write to the cache.
    """
    view, sizes = calibration.for_engine(m.engine), m.sizes
    rows, key = m.batch * m.new_tokens, sizes.nope_head_dim + sizes.rope_head_dim
    products = latent_inward(sizes.hidden, m.heads, key, sizes.kv_lora_rank + sizes.rope_head_dim,
                             sizes.q_lora_rank, m.index_heads, sizes.index_head_dim)
    found = [(rows, p) for p in (*products, latent_outward(sizes.hidden, m.heads,
                                                           sizes.v_head_dim))]
    if not sizes.index_heads:
        seen = rows if m.decode else m.batch * (m.new_tokens + m.context)
        found.append((seen, latent_expansion(m.heads, sizes.nope_head_dim, sizes.v_head_dim,
                                             sizes.kv_lora_rank)))
    seconds = sum(view.latency("gemm", hardware, m=r, n=p.n, k=p.k, dtype=m.weights,
                               activation=m.activations).seconds for r, p in found)
    if not sizes.index_heads:
        moved = rotated_bytes(rows, m.heads, m.heads, key)
        seconds = seconds + view.latency("elementwise", hardware, bytes=moved).seconds
    return np.asarray(seconds)
