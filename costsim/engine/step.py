"""Time of one engine pass: prefill, decode or both, on one deployment.

t = host + Σ over layer kinds (count · Σ operators) + head; two all-reduces a layer for tensor
parallelism, dispatch and combine for expert parallelism, a hand-over between pipeline stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.deployment import Deployment
from costsim.engine.precision import Precision
from costsim.models.architecture import Attention, Layers, LinearAttention
from costsim.ops.attention import add_attention, add_linear_attention
from costsim.ops.feedforward import ExpertRanks, add_dense, add_moe
from costsim.ops.shape import Machine, Tokens, Types
from costsim.ops.tally import Tally

# Kernels that one layer launches outside captured graphs, and the host time of each launch.
KERNELS_PER_LAYER, LAUNCH_S = 14.0, 4.5e-6


@dataclass(frozen=True)
class StepTime:
    """Time of one pass through all pipeline stages; arrays broadcast over the arguments.

    Args:
        seconds: of the pass.
        by_operator, by_resource: parts; each adds up to ``seconds``.
        log_error: standard deviation of log(actual / predicted).
        flop, memory_bytes, network_bytes: per accelerator of one stage, all stages together.
    """

    seconds: Any
    by_operator: Mapping[str, Any]
    by_resource: Mapping[str, Any]
    log_error: Any
    flop: Any
    memory_bytes: Any
    network_bytes: Any


def step_time(
    deployment: Deployment,
    *,
    prefill_requests: Any = 0.0,
    prefill_tokens: Any = 0.0,
    prefill_context: Any = 0.0,
    decode_requests: Any = 0.0,
    decode_context: Any = 0.0,
    decode_width: Any = 1.0,
) -> StepTime:
    """Return the time of one pass of a replica.

    Args:
        deployment: what runs; fields of its layout and hardware may be arrays.
        prefill_requests: requests that prefill, in the whole replica.
        prefill_tokens: new tokens of each in this pass.
        prefill_context: tokens of each that are cached already.
        decode_requests: requests that decode, in the whole replica.
        decode_context: their mean context in tokens.
        decode_width: tokens each of them verifies (γ + 1 with speculation).

    Source: physics of the operators in `costsim.kernels.work`; two all-reduces per layer from
    Megatron-LM (Shoeybi et al. 2019).
    """
    tokens = _group_tokens(deployment, prefill_requests, prefill_tokens, prefill_context,
                           decode_requests, decode_context, decode_width)
    machine = Machine(deployment.hardware, deployment.calibration)
    tally = Tally()
    for layers in deployment.model.layers:
        _add_layers(tally, machine, deployment, layers, tokens)
    _add_ends(tally, machine, deployment, tokens)
    _add_stages(tally, machine, deployment, tokens)
    _hide_communication(tally, deployment)
    _add_host(tally, deployment, prefill_requests, decode_requests)
    return StepTime(tally.seconds, tally.by_operator, tally.by_resource, tally.log_error,
                    tally.flop, tally.memory_bytes, tally.network_bytes)


def _group_tokens(
    deployment: Deployment, prefill_requests: Any, prefill_tokens: Any, prefill_context: Any,
    decode_requests: Any, decode_context: Any, decode_width: Any,
) -> Tokens:
    """Return the tokens of the fullest attention group: requests are spread evenly."""
    dp = np.asarray(deployment.layout.dp, float)
    decoding = np.asarray(decode_requests, float)
    # The fullest group decides; fractional counts are averages over steps and stay as they are.
    whole = decoding == np.round(decoding)
    share = np.where(whole, np.ceil(decoding / dp), decoding / dp)
    return Tokens(np.asarray(prefill_requests, float) / dp, np.asarray(prefill_tokens, float),
                  np.asarray(prefill_context, float), share, np.asarray(decode_context, float),
                  decode_width)


def _types(precision: Precision, weight: str) -> Types:
    """Return the data types of a part: activations are quantised only where weights are."""
    weight_bytes = bytes_per_element(weight)
    activation = precision.activation if weight_bytes < 2 else "bf16"
    return Types(weight, activation, precision.kv, precision.communication)


def _add_layers(
    tally: Tally, machine: Machine, deployment: Deployment, layers: Layers, tokens: Tokens
) -> None:
    layout, precision = deployment.layout, deployment.precision
    hidden, count = deployment.model.hidden_size, layers.count
    types = _types(precision, precision.attention)
    if isinstance(layers.mixer, LinearAttention):
        add_linear_attention(tally, machine, layers.mixer, hidden, tokens, layout.tp, types, count)
    elif isinstance(layers.mixer, Attention):
        add_attention(tally, machine, layers.mixer, hidden, tokens, layout.tp, layout.cp, types,
                      count)
        _add_context_parallel(tally, machine, deployment, layers.mixer, tokens, count)
    ffn = layers.ffn
    if ffn is not None and ffn.kind == "moe":
        routing = deployment.settings.routing
        ranks = ExpertRanks(layout.tp, layout.dp, layout.cp, layout.ep, routing.kind,
                            routing.alpha, routing.counts, routing.replicated_experts)
        add_moe(tally, machine, ffn, hidden, tokens.all, ranks,
                _types(precision, precision.experts), _types(precision, precision.ffn), count)
    elif ffn is not None and ffn.kind == "dense":
        add_dense(tally, machine, ffn.width, ffn.gated, hidden, tokens.all, layout.tp,
                  _types(precision, precision.ffn), count)
    sublayers = (layers.mixer is not None) + (ffn is not None)
    _add_between(tally, machine, deployment, tokens, sublayers * count)


def _add_between(
    tally: Tally, machine: Machine, deployment: Deployment, tokens: Tokens, count: int
) -> None:
    """Add what stands between sublayers: norm with residual, and the tensor-parallel sum."""
    model, layout = deployment.model, deployment.layout
    some = tokens.all > 0
    streams = model.hyper_connections
    sharded = np.asarray(layout.tp, float) if layout.sequence_parallel else 1.0
    moved = tokens.all * model.hidden_size * 2.0 * 4.0 * streams / sharded
    tally.add("norm and residual", machine("elementwise", bytes=moved), count, some)
    many = some & (np.asarray(layout.tp) > 1)
    if not np.any(many):
        return
    element = bytes_per_element(deployment.precision.communication)
    message = tokens.all * model.hidden_size * element
    if layout.sequence_parallel:
        for operator in ("reduce_scatter", "all_gather"):
            tally.add("all-reduce", machine(operator, ranks=layout.tp, message_bytes=message),
                      count, many)
        return
    tally.add("all-reduce", machine("all_reduce", ranks=layout.tp, message_bytes=message), count,
              many)


def _add_context_parallel(
    tally: Tally, machine: Machine, deployment: Deployment, a: Attention, tokens: Tokens,
    count: int,
) -> None:
    """Add the exchange of partial outputs where a request's cache is split over ranks."""
    many = (np.asarray(deployment.layout.cp) > 1) & (tokens.decode > 0)
    if not np.any(many):
        return
    width = a.kv_lora_rank or a.v_head_dim
    heads = a.heads / np.asarray(deployment.layout.tp, float)
    message = tokens.decode * heads * (width + 1) * 2.0
    tally.add("context-parallel exchange",
              machine("all_reduce", ranks=deployment.layout.cp, message_bytes=message), count, many)


def _add_ends(tally: Tally, machine: Machine, deployment: Deployment, tokens: Tokens) -> None:
    """Add embedding, LM head (last token of each prompt only), gathered logits and sampling."""
    model, tp = deployment.model, np.asarray(deployment.layout.tp, float)
    some, rows = tokens.all > 0, tokens.rows_of_head
    embedding = machine("elementwise", bytes=tokens.all * model.hidden_size * 4.0)
    tally.add("embedding", embedding, 1, some)
    types = _types(deployment.precision, deployment.precision.head)
    head = machine("gemm", m=rows, n=model.vocab_size / tp, k=model.hidden_size,
                   dtype=types.weight, activation=types.activation)
    tally.add("lm head", head, 1, some)
    logits = rows * model.vocab_size
    many = some & (tp > 1)
    if np.any(many):
        gather = machine("all_gather", ranks=deployment.layout.tp, message_bytes=logits * 2.0)
        tally.add("gather logits", gather, 1, many)
    tally.add("sampling", machine("elementwise", bytes=logits * 12.0), 1, some)


def _add_stages(tally: Tally, machine: Machine, deployment: Deployment, tokens: Tokens) -> None:
    layout = deployment.layout
    boundaries = np.asarray(layout.pp, float) - 1.0
    if not np.any(boundaries > 0):
        return
    message = tokens.all * deployment.model.hidden_size * 2.0
    stage = np.asarray(layout.tp, float) * layout.dp * layout.cp
    across = stage * layout.pp > machine.hardware.scale_up.domain_size
    send = machine("point_to_point", message_bytes=message, across_nodes=across)
    tally.add("pipeline hand-over", send, boundaries, (boundaries > 0) & (tokens.all > 0))


_OVERLAPPED = ("all-reduce", "expert dispatch", "expert combine")


def _hide_communication(tally: Tally, deployment: Deployment) -> None:
    """Take away communication that runs under other work, at most as much as there is of it."""
    share = deployment.settings.overlap_communication
    if not share:
        return
    cover = tally.by_resource["compute"] + tally.by_resource["memory"]
    network = tally.by_resource["network"]
    for name in _OVERLAPPED:
        if name in tally.by_operator:
            seconds = tally.by_operator[name]
            room = cover * seconds / np.maximum(network, 1e-30)
            hidden = np.minimum(share * seconds, room)
            launches = np.minimum(hidden, seconds)
            tally.hide(name, "network", launches)


def _add_host(
    tally: Tally, deployment: Deployment, prefill_requests: Any, decode_requests: Any
) -> None:
    settings = deployment.settings
    running = np.asarray(prefill_requests, float) + decode_requests
    busy = running > 0
    per_group = running / np.asarray(deployment.layout.dp, float)
    host = np.where(busy, settings.host_step_s + settings.host_request_s * per_group, 0.0)
    tally.add_host("host", host)
    if settings.cuda_graphs:
        return
    layers = sum(each.count for each in deployment.model.layers)
    launches = layers * KERNELS_PER_LAYER * LAUNCH_S
    # Launches run ahead of the kernels: only what they cannot keep up with is seen.
    late = np.where(busy, np.maximum(launches - (tally.seconds - host), 0.0), 0.0)
    tally.add_host("kernel launches", late)
