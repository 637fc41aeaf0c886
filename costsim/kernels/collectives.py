"""Time of collectives over the links of a machine, by the α-β model.

Sources: Thakur, Rabenseifner and Gropp 2005 (ring and tree bounds); NVLS in-switch reduction as
in NCCL. Ranks beyond the scale-up domain make the collective hierarchical.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.hardware.accelerator import Hardware, Link


def _flat(operator: str, ranks: Any, message: Any, link: Link, efficiency: Any) -> Any:
    n = np.maximum(np.asarray(ranks, float), 1.0)
    m = np.asarray(message, float)
    bandwidth = np.asarray(link.bandwidth_bytes_per_s, float) * efficiency
    share, alpha = (n - 1.0) / n, np.asarray(link.latency_s, float)
    steps = np.ceil(np.log2(n))
    if operator == "all_reduce":
        ring = 2.0 * share * m / bandwidth + 2.0 * (n - 1.0) * alpha
        # One-shot: everybody reads everybody's buffer; wins for small messages.
        one_shot = (n - 1.0) * m / bandwidth + alpha
        tree = 2.0 * m / bandwidth + 2.0 * steps * alpha
        return np.where(n > 1, np.minimum(np.minimum(ring, one_shot), tree), 0.0)
    if operator in ("all_gather", "reduce_scatter"):
        return np.where(n > 1, share * m / bandwidth + steps * alpha, 0.0)
    return np.where(n > 1, share * m / bandwidth + alpha * np.minimum(n - 1.0, 4.0), 0.0)


def collective_time(
    operator: str, hardware: Hardware, ranks: Any, message_bytes: Any, efficiency: Any = 0.8
) -> Any:
    """Return the seconds of one collective.

    Args:
        operator: ``all_reduce``, ``all_gather``, ``reduce_scatter`` or ``all_to_all``.
        hardware: its two links.
        ranks: accelerators that take part.
        message_bytes: per rank, before the collective (after it for ``all_gather``).
        efficiency: share of the links' bandwidth that a large message reaches.
    """
    ranks = np.asarray(ranks, float)
    domain = np.asarray(hardware.scale_up.domain_size, float)
    inside = np.minimum(ranks, domain)
    nodes = np.ceil(ranks / domain)
    up = _flat(operator, inside, message_bytes, hardware.scale_up, efficiency)
    if np.all(nodes <= 1):
        return up
    out_message = np.asarray(message_bytes, float)
    if operator == "all_to_all":
        # The part that leaves the node goes over the scale-out link.
        leaving = (ranks - inside) / np.maximum(ranks - 1.0, 1.0)
        staying = np.asarray(message_bytes, float) * (1.0 - leaving)
        up = _flat(operator, inside, staying, hardware.scale_up, efficiency)
        out = out_message * leaving / (
            np.asarray(hardware.scale_out.bandwidth_bytes_per_s, float) * efficiency
        ) + np.asarray(hardware.scale_out.latency_s, float)
    else:
        # Each accelerator of a node carries its share of the message across nodes.
        out = _flat(operator, nodes, out_message / inside, hardware.scale_out, efficiency)
    return up + np.where(nodes > 1, out, 0.0)


def point_to_point_time(
    hardware: Hardware, message_bytes: Any, across_nodes: Any = False, efficiency: Any = 0.8
) -> Any:
    """Return the seconds to send a message to one neighbour."""
    near, far = hardware.scale_up, hardware.scale_out
    def one(link: Link) -> Any:
        bandwidth = np.asarray(link.bandwidth_bytes_per_s, float) * efficiency
        return np.asarray(message_bytes, float) / bandwidth + np.asarray(link.latency_s, float)
    return np.where(np.asarray(across_nodes, bool), one(far), one(near))
