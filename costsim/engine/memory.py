"""Memory of one accelerator: weights, KV cache, activations, reserves, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.deployment import Deployment
from costsim.engine.precision import Precision
from costsim.errors import DoesNotFitError
from costsim.models.architecture import Attention, Layers, Model
from costsim.models.cache import layer_kv_bytes, layer_kv_bytes_per_token, state_bytes
from costsim.models.count import parameters


@dataclass(frozen=True)
class MemoryBudget:
    """Where an accelerator's memory goes; arrays broadcast over layout and hardware.

    Args:
        capacity_bytes: what the engine may use.
        weights_bytes, activation_bytes, reserve_bytes: per accelerator.
        kv_bytes: left for the cache, per accelerator; negative where the weights do not fit.
        kv_bytes_per_token: per accelerator that holds the token, before windows cap it.
        kv_capacity_tokens: of the whole replica.
        fits: whether anything is left for the cache.
    """

    capacity_bytes: Any
    weights_bytes: Any
    activation_bytes: Any
    reserve_bytes: Any
    kv_bytes: Any
    kv_bytes_per_token: Any
    kv_capacity_tokens: Any
    fits: Any


def weight_bytes(model: Model, precision: Precision, layout: Any) -> Any:
    """Return the bytes of weights on the fullest accelerator.

    Args:
        model, precision: what is stored in which type.
        layout: tp shards attention, dense layers and vocabulary; ep and moe_tp the experts;
            pp deals out the layers.
    """
    counted = parameters(model)
    tp, pp = np.asarray(layout.tp, float), np.asarray(layout.pp, float)
    stage = tp * layout.dp * layout.cp
    b = bytes_per_element
    dense = counted.part("attention") * b(precision.attention)
    dense = dense + (counted.part("ffn") + counted.part("shared")) * b(precision.ffn)
    experts = counted.part("experts") * b(precision.experts)
    small = (counted.part("router") + counted.part("norms")) * 2.0
    head = counted.head or counted.embedding
    table = counted.embedding * 2.0 / tp + np.where(
        (pp == 1) & (counted.head == 0), 0.0, head * b(precision.head) / tp
    )
    ends = np.where(pp > 1, np.maximum(counted.embedding * 2.0, head * b(precision.head)) / tp,
                    table)
    other = (counted.encoders + counted.other + counted.mtp) * 2.0
    return (dense / tp + experts / stage + small) / pp + ends + other / tp


def _kv_shards(layers: Layers, layout: Any) -> Any:
    """Return over how many ranks of a group a layer's cache is spread."""
    mixer = layers.mixer
    cp = np.asarray(layout.cp, float)
    if not isinstance(mixer, Attention) or mixer.kind in ("mla", "dsa"):
        return cp
    return np.minimum(np.asarray(layout.tp, float), mixer.kv_heads) * cp


def kv_bytes_per_request(deployment: Deployment, context: Any) -> Any:
    """Return the cache bytes of one request of ``context`` tokens on each accelerator of its
    group, recurrent states included."""
    model, layout = deployment.model, deployment.layout
    offloaded = 1.0 - deployment.settings.kv_offload_share
    cache: Any = 0.0
    for each in model.layers:
        bytes_ = each.count * layer_kv_bytes(each, context, deployment.precision.kv)
        cache = cache + bytes_ / _kv_shards(each, layout)
    state = state_bytes(model) / np.asarray(layout.tp, float)
    return (cache * offloaded + state) / np.asarray(layout.pp, float)


def activation_bytes(deployment: Deployment) -> Any:
    """Return the working memory of the largest pass: a few copies of the widest activations."""
    model, layout = deployment.model, deployment.layout
    tp = np.asarray(layout.tp, float)
    widest = model.hidden_size * 4.0
    for each in model.layers:
        if each.ffn is not None:
            width = each.ffn.width * (each.ffn.top_k or 1) + each.ffn.shared_width
            widest = max(widest, 3.0 * width)
    budget = deployment.settings.max_num_batched_tokens
    logits = deployment.settings.max_num_seqs * model.vocab_size * 4.0 / tp
    return budget * (4.0 * model.hidden_size + widest / tp) * 2.0 + logits


def memory_budget(deployment: Deployment) -> MemoryBudget:
    """Return where the memory of a deployment's accelerators goes.

    Args:
        deployment: fields of its layout and hardware may be arrays.
    """
    hardware, settings, layout = deployment.hardware, deployment.settings, deployment.layout
    capacity = np.asarray(hardware.memory_bytes, float) * settings.memory_utilization
    resident = 1.0 - settings.weight_offload_share
    weights = weight_bytes(deployment.model, deployment.precision, layout) * resident
    weights = weights + _lora_bytes(deployment)
    activations = activation_bytes(deployment)
    left = capacity - weights - activations - settings.reserve_bytes
    per_token: Any = 0.0
    for each in deployment.model.layers:
        bytes_ = each.count * layer_kv_bytes_per_token(each, deployment.precision.kv)
        per_token = per_token + bytes_ / _kv_shards(each, layout)
    per_token = per_token * (1.0 - settings.kv_offload_share) / np.asarray(layout.pp, float)
    tokens = np.floor(np.maximum(left, 0.0) / np.maximum(per_token, 1e-9)) * layout.dp
    return MemoryBudget(capacity, weights, activations, settings.reserve_bytes, left, per_token,
                        tokens, left > 0)


def _lora_bytes(deployment: Deployment) -> Any:
    """Return the bytes of LoRA adapters: two rank-r factors beside every attention projection."""
    settings, model = deployment.settings, deployment.model
    if not settings.lora_adapters:
        return 0.0
    layers = sum(each.count for each in model.layers)
    per_adapter = layers * 4 * 2 * settings.lora_rank * model.hidden_size * 2.0
    return settings.lora_adapters * per_adapter / np.asarray(deployment.layout.tp, float)


def max_batch(deployment: Deployment, context: Any, budget: MemoryBudget | None = None) -> Any:
    """Return how many requests of ``context`` tokens a replica holds at once (0: none)."""
    budget = budget or memory_budget(deployment)
    block = deployment.settings.kv_block_tokens
    rounded = np.ceil(np.asarray(context, float) / block) * block
    per_request = kv_bytes_per_request(deployment, rounded)
    each = np.floor(np.maximum(budget.kv_bytes, 0.0) / np.maximum(per_request, 1e-9))
    each = np.minimum(each, deployment.settings.max_num_seqs)
    return each * deployment.layout.dp * deployment.layout.pp


def check_fits(deployment: Deployment, context: int = 0) -> None:
    """Refuse a deployment whose weights, or one request of ``context`` tokens, do not fit.

    Raises:
        DoesNotFitError: one line with what is needed and what there is.
    """
    budget = memory_budget(deployment)
    where = f"{deployment.model.name} on {deployment.layout.accelerators}x " \
            f"{deployment.hardware.name} ({deployment.layout})"
    if not bool(np.all(budget.fits)):
        need = float(np.max(budget.weights_bytes + budget.activation_bytes)) / 1e9
        have = float(np.min(budget.capacity_bytes)) / 1e9
        raise DoesNotFitError(
            f"{where}: weights and activations need {need:.1f} GB per accelerator, "
            f"{have:.1f} GB are usable; use more accelerators or a smaller data type"
        )
    if context and float(np.max(max_batch(deployment, context, budget))) < 1:
        tokens = int(np.min(budget.kv_capacity_tokens))
        raise DoesNotFitError(
            f"{where}: a request of {context} tokens exceeds the KV cache of {tokens} tokens"
        )
