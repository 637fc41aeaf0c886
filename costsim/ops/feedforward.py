"""One feed-forward layer, dense or mixture of experts, with its expert-parallel traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.kernels.calibration import LOW_LATENCY, NORMAL
from costsim.kernels.collectives import distinct
from costsim.kernels.operators import variant
from costsim.models.architecture import FeedForward
from costsim.ops.queue import Queue
from costsim.ops.routing import expert_load
from costsim.ops.shape import Call, Machine, Tokens, Types


@dataclass(frozen=True)
class ExpertRanks:
    """How a layer's experts lie on the accelerators of a stage.

    Args:
        tp, dp, cp: attention layout; the stage holds their product.
        ep: expert-parallel ranks.
        routing_kind, alpha, counts, replicas: expert load.
    """

    tp: Any = 1
    dp: Any = 1
    cp: Any = 1
    ep: Any = 1
    routing_kind: str = "uniform"
    alpha: float = 0.0
    counts: tuple[float, ...] = ()
    replicas: int = 0

    @property
    def stage(self) -> Any:
        """Accelerators of a stage."""
        return np.asarray(self.tp, float) * self.dp * self.cp

    def loaded(self, experts: Call) -> Call:
        """Return a call of the experts' kernel with the load of its slowest rank."""

        def load(shape: Mapping[str, Any]) -> Mapping[str, Any]:
            touched, most = expert_load(
                shape["tokens"], shape["top_k"], shape["experts"], shape["ep"],
                self.routing_kind, self.alpha, self.counts, self.replicas)
            return {"touched": touched, "max_load": most}

        return replace(experts, derived=load)


def _gemm(machine: Machine, types: Types, m: Any, n: Any, k: Any) -> Any:
    return machine("gemm", m=m, n=n, k=k, dtype=types.weight, activation=types.activation)


def add_dense(
    queue: Queue, machine: Machine, width: Any, gated: bool, hidden: int, tokens: Any, tp: Any,
    types: Types, count: int, name: str = "ffn",
) -> None:
    """Add ``count`` dense FFNs: up (and gate), activation, down.

    Args:
        queue, machine: where to add, on what.
        width: inner width; gated: SwiGLU and the like.
        hidden: d.
        tokens: rows per attention group, those of `Tokens.all`.
        tp: tensor-parallel ranks.
        types: data types.
        count: layers.
        name: what to call it in the breakdown.
    """
    local, some = width / np.asarray(tp, float), np.asarray(tokens) > 0
    inward = (2.0 if gated else 1.0) * local
    queue.add(f"{name} up", _gemm(machine, types, tokens, inward, hidden), count, some,
              "tokens")
    queue.add(f"{name} down", _gemm(machine, types, tokens, hidden, local), count, some,
              "tokens")
    moved = np.asarray(tokens, float) * (inward + local) * 2.0
    queue.add("activation", machine("elementwise", bytes=moved), count, some, "tokens")


def add_moe(
    queue: Queue, machine: Machine, ffn: FeedForward, hidden: int, group: Tokens,
    ranks: ExpertRanks, types: Types, shared_types: Types, count: int,
) -> None:
    """Add ``count`` MoE layers: router, dispatch, experts on the slowest rank, combine, shared.

    Args:
        queue, machine: where to add, on what.
        ffn: the layer's feed-forward part.
        hidden: d.
        group: tokens of the fullest attention group; those of all groups enter the layer.
        ranks: layout of the experts.
        types: of the routed experts; shared_types: of the shared ones.
        count: layers.
    """
    tokens, group_tokens = np.asarray(group.all_groups, float), group.all
    some = group.some
    router = machine("gemm", m=group_tokens, n=ffn.experts, k=hidden, dtype="bf16",
                     activation="bf16")
    queue.add("router", router, count, some, "tokens")
    size = ffn.latent_size or hidden
    if ffn.latent_size:
        latent = machine("gemm", m=group_tokens, n=size, k=hidden, dtype=types.weight,
                         activation=types.activation)
        queue.add("router", latent, 2 * count, some, "tokens")
    shape = {"tokens": tokens, "hidden": size, "width": ffn.width, "top_k": ffn.top_k,
             "experts": ffn.experts, "moe_tp": ranks.stage / ranks.ep, "ep": ranks.ep,
             "gated": ffn.gated, "dtype": types.weight, "activation": types.activation}
    _add_experts(queue, machine, shape, ranks, count)
    _add_exchange(queue, machine, ffn, size, group, ranks, types, count)
    if ffn.shared_width:
        add_dense(queue, machine, ffn.shared_width, ffn.gated, hidden, group_tokens,
                  ranks.tp * ranks.cp, shared_types, count, "shared expert")


def _add_experts(
    queue: Queue, machine: Machine, shape: Mapping[str, Any], ranks: ExpertRanks, count: int
) -> None:
    """Add the experts: behind an exchange of tokens the engine's own kernels, if measured."""
    some = np.asarray(shape["tokens"]) > 0
    spread = (np.asarray(ranks.dp) > 1) & (np.asarray(ranks.ep) > 1)
    beside = machine.calibration.exchanged(variant("moe", shape)) if np.any(spread) else None
    if beside is None or not np.all(spread):
        alone = some if beside is None else some & ~spread
        queue.add("experts", ranks.loaded(machine("moe", **shape)), count, alone, "experts")
    if beside is not None:
        own = replace(machine, calibration=beside)
        queue.add("experts", ranks.loaded(own("moe", **shape)), count, some & spread, "experts")


def _add_exchange(
    queue: Queue, machine: Machine, ffn: FeedForward, size: int, group: Tokens,
    ranks: ExpertRanks, types: Types, count: int,
) -> None:
    """Add dispatch and combine where attention is data parallel, of the fullest rank's tokens.

    With attention in one tensor-parallel group every rank holds all tokens and the all-reduce
    after the layer adds the experts up: nothing more is sent. An engine whose DeepEP kernels were
    measured sends by them, prompts by the normal and decode steps by the low-latency ones.
    """
    tokens = np.asarray(group.all, float)
    many = (np.asarray(ranks.dp) > 1) & (tokens > 0)
    if not np.any(many):
        return
    token = size * tokens / (np.asarray(ranks.tp, float) * ranks.cp)
    ways = [(LOW_LATENCY, many & ~group.prompts), (NORMAL, many & group.prompts)]
    if any(machine.calibration.sending(mode) is None for mode, _ in ways):
        _send(queue, machine, token, _copies(ffn, machine, ranks), ranks, types, count, many)
        return
    for mode, when in ways:
        own = machine.calibration.sending(mode)
        if own is not None and np.any(when):
            _send(queue, replace(machine, calibration=own), token,
                  _sent_copies(ffn, machine, ranks, mode), ranks, types, count, when)


def _send(
    queue: Queue, machine: Machine, token: Any, copies: Mapping[str, Any], ranks: ExpertRanks,
    types: Types, count: int, when: Any,
) -> None:
    sent = types.activation if bytes_per_element(types.activation) < 2 else types.communication
    for name, dtype in (("expert dispatch", sent), ("expert combine", types.communication)):
        volume = {what: token * n * bytes_per_element(dtype) for what, n in copies.items()}
        # Steps alike in the tokens of all ranks may differ in those of the fullest one.
        queue.add(name, machine("all_to_all", ranks=ranks.stage, **volume), count, when)


def _copies(ffn: FeedForward, machine: Machine, ranks: ExpertRanks) -> dict[str, Any]:
    """Return how often a token is sent, by a plain all-to-all.

    A token goes to each rank of an expert that is sliced; with node-limited routing one copy goes
    to each node that it may reach and is forwarded there over the faster link (DeepSeek-V3,
    arXiv:2412.19437, section 3.2).
    """
    copies = np.minimum(ffn.top_k, ranks.ep) * ranks.stage / ranks.ep
    if ffn.groups and ffn.top_groups:
        nodes = np.ceil(ranks.stage / machine.hardware.scale_up.domain_size)
        limited = np.minimum(nodes, float(ffn.top_groups))
        copies = np.where(nodes > 1, np.minimum(copies, limited), copies)
    return {"message_bytes": copies}


def _sent_copies(
    ffn: FeedForward, machine: Machine, ranks: ExpertRanks, mode: str
) -> dict[str, Any]:
    """Return how often a token is sent by DeepEP, and how often to another node.

    Low-latency kernels send one copy to each expert, normal ones to each rank, and over the slow
    link to each node: of those that node-limited routing lets it reach.
    """
    domain = np.asarray(machine.hardware.scale_up.domain_size, float)
    slices = ranks.stage / np.asarray(ranks.ep, float)
    if mode == LOW_LATENCY:
        copies = ffn.top_k * slices
        leaving = copies * np.maximum(1.0 - domain / ranks.stage, 0.0)
    else:
        copies = distinct(ranks.ep, ffn.top_k) * slices
        nodes = np.ceil(ranks.stage / domain)
        reached = np.minimum(nodes, ffn.top_groups) if ffn.groups and ffn.top_groups else nodes
        leaving = distinct(reached, ffn.top_k) * (1.0 - 1.0 / nodes)
    return {"message_bytes": copies, "leaving_bytes": leaving}
