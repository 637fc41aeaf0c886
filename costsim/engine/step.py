"""Time of one engine step: prefill chunks and decoding requests through the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.extras import add_adapters, add_drafting, add_host_memory
from costsim.engine.memory import request_kv_bytes
from costsim.engine.passes import Pass, add_ends, add_stack, add_stage_transfers
from costsim.engine.speculation import verify_width
from costsim.engine.weights import weights_bytes
from costsim.models.architecture import LinearAttention, Model
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Tokens, replica_tokens
from costsim.ops.tally import Tally

# glibc hands freed memory above a threshold back to the system, to be faulted in again by the next
# array. A large block that is freed raises the threshold (mallopt(3), M_MMAP_THRESHOLD).
np.empty(4_000_000)

_LONG_KERNELS = ("attention (decode)",)
_SHARED_EXPERTS = ("shared expert up", "shared expert down")
# Operators that `_as_captured` treats in another way than the rest.
_APART = frozenset([*_LONG_KERNELS, *_SHARED_EXPERTS, "experts"])


@dataclass(frozen=True)
class StepTime:
    """Predicted time of one step and what it is made of; values are arrays that broadcast.

    Args:
        seconds: one (micro-)batch through all pipeline stages, host included.
        by_operator: seconds by operator, adding up to ``seconds``.
        by_resource: seconds by ``compute``, ``memory``, ``network``, ``host``; the same sum.
        log_error: standard deviation of log(actual / predicted).
        flop, memory_bytes, network_bytes: work per accelerator, over all stages.
    """

    seconds: Any
    by_operator: Mapping[str, Any]
    by_resource: Mapping[str, Any]
    log_error: Any
    flop: Any
    memory_bytes: Any
    network_bytes: Any


def pass_of(deployment: Deployment) -> Pass:
    """Return the deployment as the passes see it."""
    machine = Machine(deployment.hardware, deployment.calibration)
    return Pass(deployment.model, machine, deployment.layout, deployment.precision,
                deployment.settings)


def step_time(
    deployment: Deployment,
    prefill_requests: Any = 0,
    prefill_tokens: Any = 0,
    prefill_context: Any = 0,
    decode_requests: Any = 0,
    decode_context: Any = 0,
    decode_width: Any = None,
) -> StepTime:
    """Return the time of one step; all arguments broadcast, also with array fields of layouts.

    Args:
        deployment: model, hardware, layout, data types, engine, calibration.
        prefill_requests: requests of the replica that read a chunk of their prompt.
        prefill_tokens: new tokens of each such chunk.
        prefill_context: tokens of each already cached.
        decode_requests: requests of the replica that decode.
        decode_context: their mean context in tokens.
        decode_width: tokens each of them verifies; None: γ + 1 where the engine speculates.

    With speculative decoding the decoding requests verify all drafted tokens, and the drafting
    is part of the step. Formulas: docs/ops.md and docs/engine.md.
    """
    settings = deployment.settings
    width = verify_width(settings) if decode_width is None else decode_width
    return priced(deployment, replica_tokens(
        prefill_requests, prefill_tokens, prefill_context, decode_requests, decode_context,
        deployment.layout.dp, width, settings.context_spread,
    ))


def priced(
    deployment: Deployment, tokens: Tokens, flat: int = 0, detailed: bool = True
) -> StepTime:
    """Return the time of a step with given tokens.

    Args:
        deployment: as in `step_time`.
        tokens: of the fullest attention group.
        flat: number of steps, where all arrays are flat ones of that many; 0: any arrays.
        detailed: whether the breakdown by operator is needed.
    """
    settings, on = deployment.settings, pass_of(deployment)
    queue = Queue(replaced=settings.replaces, alike=on.alike(tokens, flat) if flat else None,
                  apart=None if detailed else _APART)
    add_model(queue, on, tokens)
    add_adapters(queue, on, tokens)
    add_drafting(queue, on, tokens)
    tally = queue.price()
    _as_captured(tally, deployment, tokens)
    if settings.overlap_communication:
        tally.overlap_network(settings.overlap_communication)
    _add_host_memory(tally, deployment, on, tokens)
    _add_host(tally, deployment, tokens)
    return finish(tally)


def add_model(queue: Queue, on: Pass, tokens: Tokens) -> None:
    """Add the whole model: layers, ends and transfers between stages."""
    add_stack(queue, on, tokens)
    add_ends(queue, on, tokens)
    add_stage_transfers(queue, on, tokens)


def _as_captured(tally: Tally, deployment: Deployment, tokens: Tokens) -> None:
    """Turn times of kernels measured one by one into those of a decode step's captured graph.

    Steps with prompts are not captured whole: the share of their tokens that decode counts.
    """
    settings = deployment.settings
    factor = settings.kernel_time_factor
    if deployment.hardware.supports("fp4") and settings.kernel_time_factor_fp4 > 0:
        factor = settings.kernel_time_factor_fp4
    captured = tokens.decode / np.maximum(tokens.all, 1e-9)
    if settings.parallel_shared_experts:
        tally.hide(_SHARED_EXPERTS, "experts", captured)
    if factor != 1.0:
        tally.scale(1.0 + (factor - 1.0) * captured, besides=_LONG_KERNELS)


def _add_host_memory(tally: Tally, deployment: Deployment, on: Pass, tokens: Tokens) -> None:
    settings = deployment.settings
    weights, cache = settings.weight_offload_share, settings.kv_offload_share
    if not weights and not cache:
        return
    everything = deployment.with_changes(settings=replace(settings, weight_offload_share=0.0))
    stages = np.asarray(deployment.layout.pp, float)
    moved = weights_bytes(everything) * weights * stages
    held = request_kv_bytes(deployment, tokens.decode_context) * cache * stages
    add_host_memory(tally, on, tokens, moved, held)


def _add_host(tally: Tally, deployment: Deployment, tokens: Tokens) -> None:
    settings = deployment.settings
    running = tokens.prefill_requests + tokens.decode_requests
    if not settings.cuda_graphs:
        # Kernels are started one by one: the host is the limit where it is the slower.
        late = np.maximum(tally.calls * settings.kernel_launch_s - tally.seconds, 0.0)
        tally.add_host("kernel launches", late)
    if settings.prompt_latent_s:
        start = settings.prompt_latent_s * _latent_layers(deployment.model)
        late = np.maximum(start - tally.seconds, 0.0)
        tally.add_host("prompt launches", np.where(tokens.prefill > 0, late, 0.0))
    once = settings.host_step_s + _host_of_layers(tally, deployment, tokens)
    each = np.asarray(settings.host_request_s, float)
    if settings.speculation is not None:
        once = once + settings.draft_host_s * (tokens.decode > 0)
        each = each + settings.draft_request_s * (tokens.decode > 0)
    if not settings.async_scheduling:
        once, each = once + settings.sync_step_s, each + settings.sync_request_s
    host = np.where(running > 0, once, 0.0) + each * running
    tally.add_host("host", host)


def _latent_layers(model: Model) -> int:
    """Return how many layers have latent or linear attention."""
    return sum(kind.count for kind in model.layers
               if isinstance(kind.mixer, LinearAttention)
               or (kind.mixer is not None and kind.mixer.kind in ("mla", "dsa")))


def _host_of_layers(tally: Tally, deployment: Deployment, tokens: Tokens) -> Any:
    """Return host time of all layers, by what a layer moves where that matters."""
    settings = deployment.settings
    layers = sum(kind.count for kind in deployment.model.layers)
    if not settings.host_layer_curve:
        experts = sum(kind.count for kind in deployment.model.layers
                      if kind.ffn and kind.ffn.kind == "moe")
        exchange = settings.exchange_gap_s * (np.asarray(deployment.layout.dp) > 1)
        return settings.layer_gap_s * layers + (settings.expert_gap_s + exchange) * experts
    copies = np.where(tokens.all > 1, settings.packed_copies, 0.0)
    streamed = np.asarray(tally.memory_bytes, float) / layers * (1.0 + copies)
    return layers * np.interp(streamed, *np.transpose(settings.host_layer_curve))


def finish(tally: Tally) -> StepTime:
    """Return the sums of a tally as a step."""
    return StepTime(
        seconds=tally.seconds, by_operator=dict(tally.by_operator),
        by_resource=dict(tally.by_resource), log_error=tally.log_error, flop=tally.flop,
        memory_bytes=tally.memory_bytes, network_bytes=tally.network_bytes,
    )
