"""One pass of tokens through a model: every operator of every layer kind, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.settings import EngineSettings
from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model
from costsim.ops.alike import Alike
from costsim.ops.attention import add_attention, add_linear_attention, local_kv_heads
from costsim.ops.feedforward import ExpertRanks, add_dense, add_moe
from costsim.ops.listed import add_listed
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Tokens, Types

_ACTIVATION_BYTES = 2.0


@dataclass(frozen=True)
class Pass:
    """What a pass runs on, besides its tokens.

    Args:
        model, machine, layout, precision, settings: of the deployment.
    """

    model: Model
    machine: Machine
    layout: Layout
    precision: Precision
    settings: EngineSettings

    def types(self, part: str) -> Types:
        """Return the data types of a part (field of `Precision`); plain parts stay plain."""
        p = self.precision
        weight = getattr(p, part)
        plain = bytes_per_element(weight) >= _ACTIVATION_BYTES
        return Types(weight, weight if plain else p.activation, p.kv, p.communication)

    @property
    def ranks(self) -> Any:
        """Accelerators that slice one attention group's dense layers: tp · cp."""
        return np.asarray(self.layout.tp, float) * self.layout.cp

    @property
    def expert_ranks(self) -> ExpertRanks:
        """Where the experts lie."""
        at, routing = self.layout, self.settings.routing
        return ExpertRanks(at.tp, at.dp, at.cp, at.ep, routing.kind, routing.alpha,
                           routing.counts, routing.replicated_experts)

    def alike(self, tokens: Tokens, size: int) -> Alike:
        """Return which of ``size`` flat steps are alike, by part (`costsim.ops.alike.PARTS`)."""
        at, t = self.layout, tokens
        group = [np.asarray(at.tp, float), np.asarray(at.cp, float)]
        prompts = [t.prefill_requests, t.prefill_tokens, t.prefill_context]
        decodes = [t.decode_requests, t.decode_context, t.decode_width, t.context_spread]
        return Alike(size, {
            "tokens": lambda: (group, [t.all]), "rows": lambda: (group, [t.rows_of_head]),
            "prompts": lambda: (group, prompts), "decodes": lambda: (group, decodes),
            "step": lambda: (group, [*prompts, *decodes]),
            "experts": lambda: ([self.expert_ranks.stage, at.ep, np.asarray(at.dp) > 1],
                                [t.all_groups])})


def add_layers(queue: Queue, on: Pass, layers: Layers, tokens: Tokens, count: Any) -> None:
    """Add ``count`` layers of one kind: mixer, feed-forward part, norms and collectives.

    Args:
        queue: where to add.
        on: model, machine, layout, data types.
        layers: the kind (its own count is not used).
        tokens: of the pass.
        count: how many.
    """
    _add_mixer(queue, on, layers.mixer, tokens, count)
    _add_feed_forward(queue, on, layers.ffn, tokens, count)
    _add_listed(queue, on, layers, tokens, count)


def add_stack(queue: Queue, on: Pass, tokens: Tokens) -> None:
    """Add all layers of the model; mixers and feed-forward parts of several kinds are one."""
    mixers: dict[Attention | LinearAttention | None, int] = {}
    parts: dict[FeedForward | None, int] = {}
    for layers in on.model.layers:
        mixers[layers.mixer] = mixers.get(layers.mixer, 0) + layers.count
        parts[layers.ffn] = parts.get(layers.ffn, 0) + layers.count
        _add_listed(queue, on, layers, tokens, layers.count)
    for mixer, count in mixers.items():
        _add_mixer(queue, on, mixer, tokens, count)
    for ffn, count in parts.items():
        _add_feed_forward(queue, on, ffn, tokens, count)


def _add_mixer(
    queue: Queue, on: Pass, mixer: Attention | LinearAttention | None, tokens: Tokens, count: Any
) -> None:
    if mixer is None:
        return
    types, hidden = on.types("attention"), on.model.hidden_size
    if isinstance(mixer, Attention):
        add_attention(queue, on.machine, mixer, hidden, tokens, on.layout.tp, on.layout.cp,
                      types, count)
        add_context_exchange(queue, on, mixer, tokens, count)
    else:
        add_linear_attention(queue, on.machine, mixer, hidden, tokens, on.ranks, types, count)
    _add_joint(queue, on, tokens, types, count)


def _add_listed(queue: Queue, on: Pass, layers: Layers, tokens: Tokens, count: Any) -> None:
    """Add the operators of the engine's list that run in a kind of layer."""
    if on.settings.operators:
        add_listed(queue, on.machine, on.settings.operators, _places(layers),
                   _sizes(on, tokens, layers), on.types("attention"), count)


def _places(layers: Layers) -> list[str]:
    """Return where operators that a preset lists run in a layer (`costsim.ops.listed.PLACES`)."""
    places, mixer = ["layer"], layers.mixer
    if isinstance(mixer, Attention):
        places += ["attention"] + ["qk_norm"] * mixer.qk_norm
    return places + ([layers.ffn.kind] if layers.ffn else [])


def _sizes(on: Pass, tokens: Tokens, layers: Layers | None = None) -> dict[str, Any]:
    """Return the sizes that a preset's list may name (`costsim.ops.listed.SIZES`)."""
    types = on.types("attention")
    prompts, decodes = np.asarray(tokens.prefill_requests, float), tokens.decode_requests
    seen = np.asarray(tokens.prefill_context, float) + tokens.prefill_tokens
    sizes = {
        "tokens": tokens.all, "requests": prompts + decodes,
        "cached": prompts * seen + decodes * np.asarray(tokens.decode_context, float),
        "hidden": on.model.hidden_size, "vocabulary": on.model.vocab_size / on.ranks,
        "head_rows": tokens.rows_of_head, "element": bytes_per_element(types.activation),
        "kv_element": bytes_per_element(types.kv)}
    mixer, ffn = (layers.mixer, layers.ffn) if layers else (None, None)
    if isinstance(mixer, Attention):
        tp = np.asarray(on.layout.tp, float)
        sizes |= {"heads": mixer.heads / tp, "kv_heads": local_kv_heads(mixer.kv_heads, tp),
                  "head_dim": mixer.head_dim, "v_head_dim": mixer.v_head_dim}
    if ffn is not None:
        sizes |= {"width": ffn.width / on.ranks, "experts": ffn.experts}
    return sizes


def add_context_exchange(queue: Queue, on: Pass, a: Attention, tokens: Tokens, count: Any) -> None:
    """Add the sum of partial attention outputs over context-parallel ranks (decode).

    Each rank attends to its share of the cache with all of the group's heads; outputs and their
    softmax statistics are reduce-scattered (flash-decoding over ranks).
    """
    ranks = np.asarray(on.layout.cp, float)
    many = (ranks > 1) & tokens.decodes
    if not np.any(many):
        return
    heads = a.heads / np.asarray(on.layout.tp, float)
    width = a.kv_lora_rank or a.v_head_dim
    message = tokens.decode * heads * (width + 2.0) * 2.0
    queue.add("context exchange",
              on.machine("reduce_scatter", ranks=ranks, message_bytes=message), count, many,
              "decodes")


def _add_feed_forward(
    queue: Queue, on: Pass, ffn: FeedForward | None, tokens: Tokens, count: Any
) -> None:
    if ffn is None or ffn.kind == "none":
        return
    types = on.types("ffn")
    if ffn.kind == "moe":
        add_moe(queue, on.machine, ffn, on.model.hidden_size, tokens, on.expert_ranks,
                on.types("experts"), types, count)
        types = on.types("experts")
    else:
        add_dense(queue, on.machine, ffn.width, ffn.gated, on.model.hidden_size, tokens.all,
                  on.ranks, types, count)
    _add_joint(queue, on, tokens, types, count)


def _add_joint(queue: Queue, on: Pass, tokens: Tokens, types: Types, count: Any) -> None:
    """Add what follows each sublayer: its all-reduce, residual, norm and quantisation."""
    rows, some = tokens.all, tokens.some
    message = rows * on.model.hidden_size * bytes_per_element(on.precision.communication)
    _add_sum_over_ranks(queue, on, message, count)
    width = on.model.hidden_size * on.model.hyper_connections
    share = on.ranks if on.layout.sequence_parallel else 1.0
    # Residual and normed output written, residual and sublayer output read.
    moved = 4.0 * _ACTIVATION_BYTES * rows * width / share
    queue.add("norm and residual", on.machine("elementwise", bytes=moved), count, some,
              "tokens")
    if bytes_per_element(types.activation) < _ACTIVATION_BYTES:
        narrow = bytes_per_element(types.activation)
        moved = rows * on.model.hidden_size * (_ACTIVATION_BYTES + narrow)
        queue.add("quantise", on.machine("elementwise", bytes=moved), count, some,
                  "tokens")


def _add_sum_over_ranks(queue: Queue, on: Pass, message: Any, count: Any) -> None:
    """Add the all-reduce over tp · cp ranks, or its two halves with sequence parallelism."""
    many = (on.ranks > 1) & (message > 0)
    if not np.any(many):
        return
    names = ("reduce_scatter", "all_gather") if on.layout.sequence_parallel else ("all_reduce",)
    for name in names:
        latency = on.machine(name, ranks=on.ranks, message_bytes=message)
        queue.add(name.replace("_", "-"), latency, count, many, "tokens")


def add_ends(queue: Queue, on: Pass, tokens: Tokens, count: Any = 1.0) -> None:
    """Add embedding, LM head (last token of a prompt, each decoded token) and sampling."""
    model, rows = on.model, tokens.rows_of_head
    some = rows > 0
    hidden, vocabulary = model.hidden_size, model.vocab_size / on.ranks
    moved = tokens.all * hidden * 2.0 * _ACTIVATION_BYTES
    queue.add("embedding", on.machine("elementwise", bytes=moved), count, tokens.some,
              "tokens")
    types = on.types("head")
    head = on.machine("gemm", m=rows, n=vocabulary, k=hidden, dtype=types.weight,
                      activation=types.activation)
    queue.add("lm head", head, count, some, "rows")
    if np.any(on.ranks > 1):
        logits = rows * model.vocab_size * _ACTIVATION_BYTES
        gather = on.machine("all_gather", ranks=on.ranks, message_bytes=logits)
        queue.add("all-gather", gather, count, (on.ranks > 1) & some, "rows")
    sampling = on.machine("elementwise", bytes=rows * model.vocab_size * 8.0)
    queue.add("sampling", sampling, count, some, "rows")
    if on.settings.operators:
        add_listed(queue, on.machine, on.settings.operators, ["ends"], _sizes(on, tokens), types,
                   count)


def add_stage_transfers(queue: Queue, on: Pass, tokens: Tokens) -> None:
    """Add the sends of hidden states from each pipeline stage to the next."""
    stages = np.asarray(on.layout.pp, float)
    if not np.any(stages > 1):
        return
    stage = on.ranks * on.layout.dp
    message = tokens.all * on.model.hidden_size * _ACTIVATION_BYTES / on.ranks
    across = stage * 2 > np.asarray(on.machine.hardware.scale_up.domain_size, float)
    latency = on.machine("point_to_point", message_bytes=message, across_nodes=across)
    queue.add("pipeline send", latency, stages - 1.0, (stages > 1) & tokens.some)
