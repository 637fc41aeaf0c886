"""Experts in training: batches of thousands of tokens per expert, traffic between nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.engine.passes import Pass
from costsim.kernels.collectives import distinct
from costsim.models.architecture import FeedForward
from costsim.ops.shape import Tokens
from costsim.ops.tally import Tally


def retime_experts(tally: Tally, on: Pass, ffn: FeedForward, tokens: Tokens, count: Any) -> None:
    """Put training's kernels and messages in place of the serving engine's.

    Args:
        tally: of ``count`` layers of one kind, as `costsim.engine.passes.add_layers` adds them.
        on: model, machine, layout, data types.
        ffn: the layers' experts.
        tokens: of the micro-batch.
        count: layers.
    """
    own = separate_experts_time(on, ffn, tokens) * count
    _retime(tally, "experts", np.minimum(own, tally.by_operator["experts"]))
    share = node_share(ffn, on)
    for name in ("expert dispatch", "expert combine"):
        if name in tally.by_operator:
            _retime(tally, name, tally.by_operator[name] * share)


def _retime(tally: Tally, name: str, seconds: Any) -> None:
    before = np.maximum(np.asarray(tally.by_operator[name], float), 1e-30)
    tally.error[name] = tally.error[name] * seconds / before
    tally.by_operator[name] = seconds


def separate_experts_time(on: Pass, ffn: FeedForward, tokens: Tokens) -> Any:
    """Return the seconds of one layer's experts where each runs GEMMs of its own.

    The fused kernels of the calibration are measured at serving's batches; with thousands of
    tokens an expert is a plain GEMM. Gathering and scattering rows is added.
    """
    ranks = on.expert_ranks
    local = ffn.experts / np.asarray(ranks.ep, float)
    sliced = ffn.width / (ranks.stage / ranks.ep)
    rows = np.asarray(tokens.all_groups, float) * ffn.top_k / ffn.experts
    size = ffn.latent_size or on.model.hidden_size
    types = on.types("experts")
    inward = (2.0 if ffn.gated else 1.0) * sliced
    kinds = {"dtype": types.weight, "activation": types.activation}
    up = on.machine("gemm", m=rows, n=inward, k=size, **kinds).latency.seconds
    down = on.machine("gemm", m=rows, n=size, k=sliced, **kinds).latency.seconds
    moved = rows * local * (4.0 * size + inward + sliced) * 2.0
    return local * (up + down) + on.machine("elementwise", bytes=moved).latency.seconds


def node_share(ffn: FeedForward, on: Pass) -> Any:
    """Return the messages between nodes over those to every chosen expert's rank.

    A token goes to each node once and is passed on inside it (DeepSeek-V3, arXiv:2412.19437,
    section 3.2.2); node-limited routing bounds the nodes.
    """
    ranks = on.expert_ranks
    domain = np.asarray(on.machine.hardware.scale_up.domain_size, float)
    nodes = np.maximum(np.asarray(ranks.stage, float) / domain, 1.0)
    reached = distinct(nodes, ffn.top_k)
    if ffn.top_groups:
        reached = np.minimum(reached, ffn.top_groups)
    copies = np.minimum(ffn.top_k, np.asarray(ranks.ep, float))
    return np.where(nodes > 1.0, np.minimum(reached / copies, 1.0), 1.0)
