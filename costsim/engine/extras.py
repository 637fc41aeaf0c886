"""Work that some deployments add to a step: adapters, drafting, host memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from costsim.engine.passes import Pass, add_ends, add_layers
from costsim.engine.precision import Precision
from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.ops.queue import Queue
from costsim.ops.shape import Tokens
from costsim.ops.tally import Tally

_ADAPTER_BYTES = 2.0


def adapter_shapes(model: Model, kind: Layers) -> list[tuple[float, float]]:
    """Return (inputs, outputs) of the linear layers that adapters stand beside.

    Query-key-value and output projections, and the matrices of a dense FFN; routed experts have
    none (as in vLLM's LoRA layers).
    """
    mixer, ffn, hidden = kind.mixer, kind.ffn, float(model.hidden_size)
    shapes: list[tuple[float, float]] = []
    if isinstance(mixer, Attention):
        keys = mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim)
        if mixer.kv_lora_rank:
            keys = mixer.kv_lora_rank + mixer.rope_head_dim
        shapes.append((hidden, float(mixer.heads * mixer.head_dim + keys)))
        shapes.append((float(mixer.heads * mixer.v_head_dim), hidden))
    if isinstance(ffn, FeedForward) and ffn.kind == "dense":
        shapes.append((hidden, (2.0 if ffn.gated else 1.0) * ffn.width))
        shapes.append((float(ffn.width), hidden))
    return shapes


def adapter_parameters(model: Model, rank: int) -> float:
    """Return the weights of one LoRA adapter of a rank, all layers together."""
    return sum(rank * kind.count * (inputs + outputs)
               for kind in model.layers for inputs, outputs in adapter_shapes(model, kind))


def add_adapters(queue: Queue, on: Pass, tokens: Tokens) -> None:
    """Add LoRA: a shrink and an expand product beside each linear layer, per adapter in use.

    Adapters are spread evenly over requests: A·(1 − (1 − 1/A)^requests) of A are in a step.
    """
    rank, adapters = on.settings.lora_rank, on.settings.lora_adapters
    if not rank or not adapters:
        return
    requests = tokens.prefill_requests + tokens.decode_requests
    used = adapters * -np.expm1(requests * np.log1p(-1.0 / max(adapters, 1.000001)))
    rows, some = tokens.all, tokens.some
    for kind in on.model.layers:
        for inputs, outputs in adapter_shapes(on.model, kind):
            out = outputs / on.ranks
            shrink = on.machine("gemm", m=rows, n=rank, k=inputs, dtype="bf16", activation="bf16")
            expand = on.machine("gemm", m=rows, n=out, k=rank, dtype="bf16", activation="bf16")
            more = np.maximum(used - 1.0, 0.0) * rank * (inputs + out) * _ADAPTER_BYTES
            others = replace(on.machine("elementwise", bytes=more), launched=False)
            for call in (shrink, expand):
                queue.add("lora", call, kind.count, some, "tokens")
            queue.add("lora", others, kind.count, some & (more > 0), "step")


def add_drafting(queue: Queue, on: Pass, tokens: Tokens) -> None:
    """Add the drafter: γ passes of the decoding requests, one of the prompts' tokens."""
    speculation = on.settings.speculation
    if speculation is None or not np.any(tokens.all > 0):
        return
    one = replace(tokens, decode_width=1.0)
    decodes = replace(one, prefill_requests=0.0 * one.prefill_requests,
                      all_groups=one.all_groups * 0.0 + _all_decodes(tokens))
    prompts = replace(one, decode_requests=0.0 * one.decode_requests,
                      all_groups=one.all_groups - _all_decodes(tokens) * tokens.decode_width)
    draft = _drafter(on)
    for part, passes in ((decodes, float(speculation.draft_tokens)), (prompts, 1.0)):
        alike = queue.alike and on.alike(part, queue.alike.size)
        spent = Queue(replaced=queue.replaced, alike=alike)
        for kind in draft.model.layers:
            add_layers(spent, draft, kind, part, passes * kind.count)
        add_ends(spent, draft, part, passes)
        queue.add_part("drafting", spent)


def _all_decodes(tokens: Tokens) -> Any:
    """Return the decoding requests of all groups together."""
    share = tokens.decode_requests * tokens.decode_width / np.maximum(tokens.all, 1e-30)
    return tokens.all_groups * share / tokens.decode_width


def _drafter(on: Pass) -> Pass:
    """Return the model that drafts: the MTP layers, one layer for EAGLE, or a model of its own."""
    speculation = on.settings.speculation
    plain = replace(on.settings, speculation=None, lora_rank=0)
    if speculation is not None and speculation.method == "draft_model":
        from costsim.models.loader import load_model

        model = load_model(speculation.draft_model)
        return replace(on, model=model, settings=plain,
                       precision=Precision.of_checkpoint(model.quantisation))
    last = replace(on.model.layers[-1], count=1)
    return replace(on, model=replace(on.model, layers=(last,)), settings=plain)


def add_host_memory(
    tally: Tally, on: Pass, tokens: Tokens, weights_bytes: Any, cache_bytes: Any
) -> None:
    """Add what the link to host memory takes longer than the step that it runs beside.

    Args:
        tally: holds the rest of the step.
        on: model, machine, layout.
        tokens: of the pass.
        weights_bytes: weights of one accelerator that lie in host memory.
        cache_bytes: cache of one decoding request that lies there, per accelerator.
    """
    moved = weights_bytes + cache_bytes * tokens.decode_requests
    link = np.asarray(on.machine.hardware.host_bandwidth_bytes_per_s, float)
    late = np.maximum(moved / link - tally.seconds, 0.0)
    tally.add_host("host memory", np.where(tokens.all > 0, late, 0.0))
