"""Weights of a model, counted part by part.

Every count is exact for the published architecture: the tests compare it with the totals that the
authors state and, on small instances, with the modules that `transformers` builds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model


@dataclass(frozen=True)
class LayerParameters:
    """Weights of one layer of a kind, by part.

    Args:
        attention: projections of the mixer (softmax or linear), indexer included.
        ffn: dense FFN; 0 in an MoE layer.
        experts: all routed experts.
        active_experts: the routed experts that one token uses.
        shared: shared experts.
        router: gate matrix, its biases, the shared expert's gate, latent projections.
        norms: norms, biases of norms, sinks and other small tensors.
    """

    attention: int
    ffn: int
    experts: int
    active_experts: int
    shared: int
    router: int
    norms: int

    @property
    def total(self) -> int:
        """All weights of the layer."""
        return (
            self.attention + self.ffn + self.experts + self.shared + self.router + self.norms
        )

    @property
    def active(self) -> int:
        """Weights that one token uses."""
        return self.total - self.experts + self.active_experts


@dataclass(frozen=True)
class ModelParameters:
    """Weights of a model by part.

    Args:
        layers: of one layer of each kind, in the order of ``Model.layers``.
        counts: how many layers of each kind.
        embedding: token embedding (and the table of learned positions).
        head: LM head; 0 where it shares the embedding's weights.
        encoders: vision and audio towers with their projectors.
        other: final norm and what else stands outside the layers.
        mtp: multi-token-prediction layers, in neither total nor active.
    """

    layers: tuple[LayerParameters, ...]
    counts: tuple[int, ...]
    embedding: int
    head: int
    encoders: int
    other: int
    mtp: int

    def part(self, name: str) -> int:
        """Return one part (field of `LayerParameters`) summed over all layers."""
        return sum(n * getattr(p, name) for n, p in zip(self.counts, self.layers, strict=True))

    @property
    def total(self) -> int:
        """All weights, without MTP layers."""
        return self.embedding + self.head + self.encoders + self.other + self.part("total")

    @property
    def active(self) -> int:
        """Weights that one text token uses, embedding and head included, encoders not."""
        return self.embedding + self.head + self.other + self.part("active")


def _mla_parameters(a: Attention, hidden: int) -> int:
    q_head = a.nope_head_dim + a.rope_head_dim
    if a.q_lora_rank:
        query = a.q_lora_rank * (hidden + 1 + a.heads * q_head)
    else:
        query = hidden * a.heads * q_head
    latent = hidden * (a.kv_lora_rank + a.rope_head_dim) + a.kv_lora_rank
    expand = a.kv_lora_rank * a.heads * (a.nope_head_dim + a.v_head_dim)
    return query + latent + expand


def _indexer_parameters(a: Attention, hidden: int) -> int:
    if not a.index_heads:
        return 0
    query_from = a.q_lora_rank or hidden
    query = query_from * a.index_heads * a.index_head_dim
    key = hidden * a.index_head_dim + 2 * a.index_head_dim
    return query + key + hidden * a.index_heads


def _qkv_parameters(a: Attention, hidden: int) -> int:
    query, key, value = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.v_head_dim
    if a.k_is_v:
        value = 0
    if a.shares_kv:
        key = value = 0
    if a.q_lora_rank:
        first, rest = a.q_lora_rank * (hidden + 1 + query), key + value
    else:
        first, rest = 0, query + key + value
    norms = (a.head_dim if a.shares_kv else 2 * a.head_dim) if a.qk_norm else 0
    return first + hidden * rest + (rest if a.qkv_bias else 0) + norms


def _output_parameters(a: Attention, hidden: int) -> int:
    width = a.heads * a.v_head_dim
    if a.output_lora_rank:
        groups = max(1, a.output_groups)
        matrices = width * a.output_lora_rank + groups * a.output_lora_rank * hidden
    else:
        matrices = width * hidden
    gate = hidden * width if a.output_gate else 0
    return matrices + gate + (hidden if a.output_bias else 0)


def attention_parameters(mixer: Attention | LinearAttention | None, hidden: int) -> int:
    """Return the weights of one layer's mixer, its inner norms and biases included.

    Args:
        mixer: softmax or linear attention, or None.
        hidden: hidden size of the model.
    """
    if mixer is None:
        return 0
    if isinstance(mixer, LinearAttention):
        return mixer.parameters
    inward = _mla_parameters if mixer.kind in ("mla", "dsa") else _qkv_parameters
    return (
        inward(mixer, hidden)
        + _indexer_parameters(mixer, hidden)
        + _output_parameters(mixer, hidden)
        + mixer.extra_matrices
    )


def expert_parameters(ffn: FeedForward, hidden: int) -> int:
    """Return the weights of one routed expert, or of the dense FFN."""
    size = ffn.latent_size or hidden
    inward = 2 if ffn.gated else 1
    bias = inward * ffn.width + size if ffn.bias else 0
    return (inward + 1) * size * ffn.width + bias


def _router_parameters(ffn: FeedForward, hidden: int) -> int:
    gate = hidden * ffn.experts + (ffn.experts if ffn.router_bias else 0)
    return gate + (hidden if ffn.shared_gate else 0) + 2 * hidden * ffn.latent_size


def layer_parameters(model: Model, layers: Layers) -> LayerParameters:
    """Return the weights of one layer of a kind, by part.

    Args:
        model: the model (its hidden size is used).
        layers: one of ``model.layers``.
    """
    hidden, ffn = model.hidden_size, layers.ffn
    sublayers = (layers.mixer is not None) + (ffn is not None)
    attention = attention_parameters(layers.mixer, hidden)
    norms = sublayers * hidden + layers.extra_parameters
    if ffn is None or ffn.kind != "moe":
        dense = expert_parameters(ffn, hidden) if ffn is not None else 0
        return LayerParameters(attention, dense, 0, 0, 0, 0, norms)
    one = expert_parameters(ffn, hidden)
    shared = (3 if ffn.gated else 2) * hidden * ffn.shared_width
    router = _router_parameters(ffn, hidden)
    return LayerParameters(
        attention, 0, ffn.experts * one, ffn.top_k * one, shared, router, norms
    )


def parameters(model: Model) -> ModelParameters:
    """Return the weights of a model by part.

    Args:
        model: the model.
    """
    table = model.vocab_size * model.hidden_size
    return ModelParameters(
        layers=tuple(layer_parameters(model, each) for each in model.layers),
        counts=tuple(each.count for each in model.layers),
        embedding=table + model.learned_positions * model.hidden_size,
        head=0 if model.tied_embeddings else table,
        encoders=sum(encoder.parameters for encoder in model.encoders),
        other=model.extra_parameters,
        mtp=model.mtp_parameters,
    )


def total_parameters(model: Model) -> Any:
    """Return all weights of a model, encoders included and MTP layers not."""
    return parameters(model).total


def active_parameters(model: Model, embedding: bool = True) -> Any:
    """Return the weights that one text token uses.

    Args:
        model: the model.
        embedding: count the token embedding (a lookup, no arithmetic); gpt-oss and Kimi-K2 state
            their active parameters without it. A table shared with the head is always counted.
    """
    counted = parameters(model)
    if embedding or model.tied_embeddings:
        return counted.active
    return counted.active - counted.embedding
