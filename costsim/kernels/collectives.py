"""Time of collectives over the links of a machine, by the α-β model.

Sources: Thakur, Rabenseifner and Gropp 2005 (ring and tree bounds); NVLS in-switch reduction as
in NCCL. Ranks beyond the scale-up domain make the collective hierarchical.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.hardware.accelerator import Hardware, Link

# What a collective across nodes costs in software beside the links: the kernel and its proxy
# threads once, and each hop over the network. Constants of the aws-ofi-nccl tuner (tree, LL
# protocol); with them 128 bytes over 16 GPUs of two nodes take 48 us, where NCCL issue 1453 shows
# 62 us on H100s and NCCL's own tuner, for InfiniBand, says 25 us.
ACROSS_ONCE_S, ACROSS_HOP_S = 12e-6, 12.5e-6


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


def wire_bytes(operator: str, ranks: Any, message: Any) -> Any:
    """Return the bytes each rank sends in the bandwidth-optimal algorithm.

    All-reduce 2(n−1)/n·M; all-gather and reduce-scatter (n−1)/n·M; all-to-all (n−1)/n·M.

    Args:
        operator: ``all_reduce``, ``all_gather``, ``reduce_scatter`` or ``all_to_all``.
        ranks: accelerators that take part.
        message: bytes per rank, before the collective (after it for ``all_gather``).
    """
    n = np.maximum(np.asarray(ranks, float), 1.0)
    passes = 2.0 if operator == "all_reduce" else 1.0
    return passes * (n - 1.0) / n * np.asarray(message, float)


def across_nodes_time(
    operator: str, hardware: Hardware, ranks: Any, message_bytes: Any, efficiency: Any
) -> Any:
    """Return the seconds that ranks beyond the scale-up domain add, over the scale-out link.

    Each accelerator of a node carries its share of the message across nodes; of an all-to-all the
    part that leaves the node.

    Args:
        operator, ranks, message_bytes: as in `wire_bytes`.
        hardware: its two links.
        efficiency: share of the links' bandwidth that a large message reaches.
    """
    ranks = np.asarray(ranks, float)
    domain = np.asarray(hardware.scale_up.domain_size, float)
    inside, nodes = np.minimum(ranks, domain), np.ceil(ranks / domain)
    if np.all(nodes <= 1):
        return 0.0
    message = np.asarray(message_bytes, float)
    if operator == "all_to_all":
        leaving = (ranks - inside) / np.maximum(ranks - 1.0, 1.0)
        bandwidth = np.asarray(hardware.scale_out.bandwidth_bytes_per_s, float) * efficiency
        out = message * leaving / bandwidth + np.asarray(hardware.scale_out.latency_s, float)
    else:
        out = _flat(operator, nodes, message / inside, hardware.scale_out, efficiency)
    hops = np.ceil(np.log2(nodes)) * (2.0 if operator == "all_reduce" else 1.0)
    hops = np.minimum(hops, 1.0) if operator == "all_to_all" else hops
    return np.where(nodes > 1, out + ACROSS_ONCE_S + ACROSS_HOP_S * hops, 0.0)


# Share of the scale-out link that DeepEP's messages reach. It was chosen on the times of the
# low-latency kernels over two to eight nodes of H100 and H200 in aiconfigurator-core, which it
# meets to 2 to 12 % at the median: what a fit reaches, not a forecast.
LEAVING_SHARE = 0.9


def leaving_time(hardware: Hardware, leaving_bytes: Any) -> Any:
    """Return the seconds that messages to other nodes take on the scale-out link of their sender.

    Args:
        hardware: its link.
        leaving_bytes: of one rank, to ranks of other nodes.
    """
    bandwidth = np.asarray(hardware.scale_out.bandwidth_bytes_per_s, float) * LEAVING_SHARE
    return np.asarray(leaving_bytes, float) / bandwidth


def distinct(places: Any, choices: Any) -> Any:
    """Return how many of some places are expected to be chosen at least once: n·(1 − (1 − 1/n)^k).

    Args:
        places: ranks or nodes that experts are spread over.
        choices: experts of a token, drawn evenly.
    """
    n = np.maximum(np.asarray(places, float), 1.0)
    return n * (1.0 - (1.0 - 1.0 / n) ** choices)


def point_to_point_time(
    hardware: Hardware, message_bytes: Any, across_nodes: Any = False, efficiency: Any = 0.8
) -> Any:
    """Return the seconds to send a message to one neighbour."""
    near, far = hardware.scale_up, hardware.scale_out
    def one(link: Link) -> Any:
        bandwidth = np.asarray(link.bandwidth_bytes_per_s, float) * efficiency
        return np.asarray(message_bytes, float) / bandwidth + np.asarray(link.latency_s, float)
    return np.where(np.asarray(across_nodes, bool), one(far), one(near))
