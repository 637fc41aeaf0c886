"""Messages of a training step outside the layers: gradients, weights, pipeline stages."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.hardware.accelerator import Hardware
from costsim.kernels.collectives import point_to_point_time
from costsim.models.architecture import Model
from costsim.training.memory import LocalParameters
from costsim.training.passes import communication_bytes
from costsim.training.plan import TrainingPlan

# Share of a link's bandwidth that large messages reach (NCCL bus bandwidth over peak); the
# measured share of the calibration replaces it for collectives inside layers.
LINK_EFFICIENCY = 0.8


def half_all_reduce_time(hardware: Hardware, ranks: Any, near: Any, message_bytes: Any) -> Any:
    """Return the seconds of a reduce-scatter or an all-gather, nodes and links in a hierarchy.

    Args:
        hardware: its links.
        ranks: n that take part.
        near: of these, how many share a scale-up domain.
        message_bytes: M, whole message on each rank; (n−1)/n·M goes over the wire.
    """
    n, k = np.maximum(np.asarray(ranks, float), 1.0), np.asarray(near, float)
    k = np.clip(k, 1.0, n)
    nodes = np.ceil(n / k)
    inside = (k - 1.0) / k * message_bytes / _bandwidth(hardware.scale_up)
    across = (nodes - 1.0) / nodes * message_bytes / k / _bandwidth(hardware.scale_out)
    waiting = np.log2(k) * np.asarray(hardware.scale_up.latency_s, float)
    waiting = waiting + np.log2(nodes) * np.asarray(hardware.scale_out.latency_s, float)
    return inside + across + waiting


def _bandwidth(link: Any) -> Any:
    return np.asarray(link.bandwidth_bytes_per_s, float) * LINK_EFFICIENCY


def gradient_passes(
    hardware: Hardware, plan: TrainingPlan, own: LocalParameters
) -> tuple[Any, Any]:
    """Return the seconds to reduce gradients and to gather weights, once each.

    Args:
        hardware, plan: where and how.
        own: parameters of the fullest accelerator.
    """
    at = plan.layout
    tp = np.asarray(at.tp, float)
    ranks = np.asarray(at.dp, float) * at.cp
    near = np.asarray(hardware.scale_up.domain_size, float) / tp
    groups = np.asarray(at.expert_groups, float)
    parts = ((own.dense, ranks, near), (own.experts, ranks / groups, near / groups))
    reduce_s, gather_s = 0.0, 0.0
    for parameters, n, k in parts:
        reduce_s = reduce_s + half_all_reduce_time(hardware, n, k, plan.gradient_bytes * parameters)
        back = plan.weight_bytes if plan.zero else plan.gradient_bytes
        gather_s = gather_s + half_all_reduce_time(hardware, n, k, back * parameters)
    return reduce_s, gather_s


def stage_send_time(model: Model, hardware: Hardware, plan: TrainingPlan) -> Any:
    """Return the seconds a micro-batch spends between one stage and the next, both ways.

    Each tensor-parallel rank sends its slice (scatter-gather, Narayanan et al. 2021).
    """
    at = plan.layout
    if not np.any(np.asarray(at.pp) > 1):
        return 0.0
    tokens = np.asarray(at.micro_batch, float) * plan.sequence / at.cp
    message = tokens * model.hidden_size * communication_bytes(plan) / np.asarray(at.tp, float)
    across = np.asarray(at.accelerators) > np.asarray(hardware.scale_up.domain_size)
    once = point_to_point_time(hardware, message, across, LINK_EFFICIENCY)
    chunks = np.asarray(at.virtual_stages, float) if plan.schedule == "interleaved" else 1.0
    return np.where(np.asarray(at.pp) > 1, 2.0 * once * chunks, 0.0)
