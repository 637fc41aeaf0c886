"""One feed-forward layer, dense or mixture of experts, with its expert-parallel traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
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
    _add_exchange(queue, machine, ffn, size, tokens, ranks, types, count)
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
    queue: Queue, machine: Machine, ffn: FeedForward, size: int, tokens: Any, ranks: ExpertRanks,
    types: Types, count: int,
) -> None:
    """Add dispatch and combine where attention is data parallel.

    With attention in one tensor-parallel group every rank holds all tokens and the all-reduce
    after the layer adds the experts up: nothing more is sent. A token goes to each rank of an
    expert that is sliced; with node-limited routing one copy goes to each node that it may reach
    and is forwarded there over the faster link (DeepSeek-V3, arXiv:2412.19437, section 3.2).
    """
    many = (np.asarray(ranks.dp) > 1) & (tokens > 0)
    if not np.any(many):
        return
    per_rank = tokens / ranks.stage
    copies = np.minimum(ffn.top_k, ranks.ep) * ranks.stage / ranks.ep
    if ffn.groups and ffn.top_groups:
        nodes = np.ceil(ranks.stage / machine.hardware.scale_up.domain_size)
        limited = np.minimum(nodes, float(ffn.top_groups))
        copies = np.where(nodes > 1, np.minimum(copies, limited), copies)
    sent = types.activation if bytes_per_element(types.activation) < 2 else types.communication
    out = per_rank * copies * size * bytes_per_element(sent)
    back = per_rank * copies * size * bytes_per_element(types.communication)
    for name, message in (("expert dispatch", out), ("expert combine", back)):
        queue.add(name, machine("all_to_all", ranks=ranks.stage, message_bytes=message), count,
                  many, "experts")
