"""Memory of one accelerator in training: weights, gradients, optimiser state, activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.parameters import layer_parameters
from costsim.training.passes import trained_layers
from costsim.training.plan import TrainingPlan
from costsim.training.schedule import in_flight


@dataclass(frozen=True)
class LocalParameters:
    """Parameters of the fullest accelerator.

    Args:
        dense: attention, dense FFN, shared experts, router, norms, embedding or head.
        experts: routed experts.
    """

    dense: Any
    experts: Any


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of the fullest accelerator.

    Args:
        weights, gradients, optimizer, activations: as named.
        logits: fp32 logits and their gradient on the last stage.
    """

    weights: Any
    gradients: Any
    optimizer: Any
    activations: Any
    logits: Any

    @property
    def total(self) -> Any:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def local_parameters(model: Model, plan: TrainingPlan) -> LocalParameters:
    """Return the parameters of the fullest accelerator: its layers and one end of the model."""
    at = plan.layout
    tp, pp = np.asarray(at.tp, float), np.asarray(at.pp, float)
    expert_ranks = np.maximum(np.asarray(at.ep, float), tp)
    dense, experts, count = 0.0, 0.0, 0
    for each in trained_layers(model, plan):
        part = layer_parameters(model, each)
        dense += each.count * (part.total - part.experts)
        experts += each.count * part.experts
        count += each.count
    share = np.ceil(count / pp) / count
    table = model.vocab_size * model.hidden_size
    tables = np.where(pp > 1, 1.0, 1.0 if model.tied_embeddings else 2.0)
    return LocalParameters(dense * share / tp + table * tables / tp, experts * share / expert_ranks)


def training_memory(model: Model, plan: TrainingPlan) -> TrainingMemory:
    """Return the memory of the fullest accelerator.

    Adam in mixed precision takes 18 bytes a parameter (2 weight, 4 gradient, 12 state); ZeRO
    shards them over data-parallel ranks (Rajbhandari et al. 2020). Activations after Korthikanti
    et al. 2022, generalised to gated FFNs, grouped KV heads, latent attention and experts.

    Args:
        model: the model.
        plan: layout, ZeRO stage, recomputation, schedule.
    """
    own, at = local_parameters(model, plan), plan.layout
    ranks = np.asarray(at.dp, float) * at.cp
    expert_ranks = np.maximum(ranks / at.expert_groups, 1.0)

    def held(per_parameter: float, stage: int) -> Any:
        sharded = plan.zero >= stage
        dense = own.dense / (ranks if sharded else 1.0)
        return per_parameter * (dense + own.experts / (expert_ranks if sharded else 1.0))

    return TrainingMemory(
        weights=held(plan.weight_bytes, 3), gradients=held(plan.gradient_bytes, 2),
        optimizer=held(plan.optimizer_bytes, 1), activations=_activations(model, plan),
        logits=_logits(model, plan))


def _logits(model: Model, plan: TrainingPlan) -> Any:
    at = plan.layout
    tokens = np.asarray(at.micro_batch, float) * plan.sequence / at.cp
    return 4.0 * tokens * model.vocab_size / np.asarray(at.tp, float)


def _activations(model: Model, plan: TrainingPlan) -> Any:
    at = plan.layout
    tokens = np.asarray(at.micro_batch, float) * plan.sequence / at.cp
    layers = trained_layers(model, plan)
    total = sum(each.count * layer_activation_bytes(model, each, plan) for each in layers)
    held = in_flight(plan.schedule, at.pp, plan.micro_batches, at.virtual_stages)
    per_stage = total / np.asarray(at.pp, float)
    stored = tokens * per_stage * held
    if plan.recompute == "full":
        largest = np.max(np.broadcast_arrays(
            *(_kept(model, each, plan, "none") for each in layers)), axis=0)
        stored = stored + tokens * largest
    return stored


def layer_activation_bytes(model: Model, layers: Layers, plan: TrainingPlan) -> Any:
    """Return the bytes kept per token and layer on each tensor-parallel rank."""
    return _kept(model, layers, plan, plan.recompute)


def _kept(model: Model, layers: Layers, plan: TrainingPlan, recompute: str) -> Any:
    hidden, tp = model.hidden_size, np.asarray(plan.layout.tp, float)
    whole = tp if plan.sequence_parallel else 1.0
    if recompute == "full":
        return 2.0 * hidden / whole
    # Inputs of norms and of the sublayers (2 B each) and dropout masks, where there is dropout.
    around = (10.0 if not plan.fused_attention else 8.0) * hidden
    inside = _attention_bytes(layers.mixer, recompute) + _ffn_bytes(layers.ffn, hidden)
    # Both count two bytes an element.
    around, inside = (v * plan.activation_bytes / 2.0 for v in (around, inside))
    scores = 0.0
    if isinstance(layers.mixer, Attention) and not plan.fused_attention and recompute == "none":
        scores = 5.0 * layers.mixer.heads * plan.sequence
    return around / whole + (inside + scores) / tp


def _attention_bytes(mixer: Any, recompute: str) -> float:
    if not isinstance(mixer, Attention):
        return 8.0 * getattr(mixer, "value_heads", 0) * getattr(mixer, "value_dim", 0)
    if mixer.kv_lora_rank:
        latent = mixer.kv_lora_rank + mixer.q_lora_rank
        if recompute == "selective":
            return 2.0 * (latent + mixer.heads * mixer.v_head_dim)
        return 2.0 * (latent + mixer.heads * (2 * mixer.head_dim + 2 * mixer.v_head_dim))
    cached = mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim)
    return 2.0 * (mixer.heads * (mixer.head_dim + mixer.v_head_dim) + cached)


def _ffn_bytes(ffn: FeedForward | None, hidden: int) -> float:
    if ffn is None or ffn.kind == "none":
        return 0.0
    matrices = 3.0 if ffn.gated else 2.0
    width = ffn.width if ffn.kind != "moe" else ffn.top_k * ffn.width + ffn.shared_width
    copies = 2.0 * ffn.top_k * hidden if ffn.kind == "moe" else 0.0
    return 2.0 * matrices * width + copies
