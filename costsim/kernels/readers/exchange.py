"""Readers of exchanges of tokens between expert-parallel ranks in ``aiconfigurator-core``.

A token goes to each rank (normal kernels) or to each expert (low-latency kernels) that it chose;
messages count every copy, also those for the sender itself, as the all-to-all of the operators
does. Dispatched tokens are fp8, returned ones 16 bit, unless a table says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from costsim.kernels.collectives import distinct

Columns = dict[str, Any]
Found = Iterator[tuple[str, dict[str, Any], Any]]

# Accelerators of one node: four on a tray of an NVL72 rack.
_TRAY, _NODE = 4.0, 8.0
_DISPATCHED_BYTES, _RETURNED_BYTES = 1.0, 2.0
# Streaming multiprocessors that DeepEP's normal kernels are given by default.
DEFAULT_UNITS = 20
_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "nvfp4": 0.5625}


def _ranks(c: Columns) -> Any:
    grace = np.char.find(c["device"].astype(str), "GB") >= 0
    return np.where(grace, _TRAY, _NODE)


def _both_ways(c: Columns, copies: Any, tokens: Any, out_us: Any, back_us: Any) -> Found:
    """Yield dispatch and combine as the all-to-all that each is."""
    sent = tokens * copies * c["hidden_size"]
    message = np.concatenate([sent * _DISPATCHED_BYTES, sent * _RETURNED_BYTES])
    yield "all_to_all", {"ranks": np.tile(_ranks(c), 2), "message_bytes": message}, (
        np.concatenate([out_us, back_us]) * 1e-6)


def low_latency(c: Columns) -> Found:
    """Yield DeepEP's low-latency kernels inside one node."""
    c = {n: v[c["node_num"] == 1] for n, v in c.items()}
    yield from _both_ways(c, c["num_topk"], c["num_token"], c["dispatch_avg_t_us"],
                          c["combine_avg_t_us"])


def normal(c: Columns) -> Found:
    """Yield DeepEP's normal kernels inside one node, with the default share of the accelerator."""
    kept = (c["node_num"] == 1) & (c["dispatch_sms"] == DEFAULT_UNITS)
    c = {n: v[kept] for n, v in c.items()}
    copies = distinct(_ranks(c), c["num_topk"])
    out, back = (c[f"{way}_transmit_us"] + c[f"{way}_notify_us"] for way in (
        "dispatch", "combine"))
    yield from _both_ways(c, copies, c["num_token"], out, back)


def nvlink(c: Columns) -> Found:
    """Yield TensorRT-LLM's exchange over the NVLink of a rack.

    The one-sided kernels, which succeed the two-sided ones.
    """
    c = {n: v[c["kernel_source"] == "NVLinkOneSided"] for n, v in c.items()}
    out = c["op_name"] == "alltoall_dispatch"
    size = np.where(out, [_BYTES.get(d, np.nan) for d in c["moe_dtype"]], _RETURNED_BYTES)
    copies = np.minimum(c["topk"], c["moe_ep_size"])
    message = c["num_tokens"] * copies * c["hidden_size"] * size
    if len(message):
        yield "all_to_all", {"ranks": c["moe_ep_size"], "message_bytes": message}, (
            c["latency"] * 1e-3)
