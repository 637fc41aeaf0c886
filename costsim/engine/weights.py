"""Weights that one accelerator holds, by part, under a layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.deployment import Deployment
from costsim.engine.extras import adapter_parameters
from costsim.engine.layout import Layout
from costsim.models.architecture import Attention, LinearAttention, Model, is_moe
from costsim.models.count import LayerParameters, expert_parameters, parameters


def weights_bytes(deployment: Deployment) -> Any:
    """Return the bytes of weights on the fullest accelerator.

    Attention and dense layers are sliced over tp (and cp, but for the query, key and value
    projections) and repeated in every data-parallel group; experts are spread over the whole
    stage. Key and value projections are repeated where there are more ranks than KV heads, and
    MLA's down projections on every rank.

    Args:
        deployment: the deployment; fields of its layout may be arrays.
    """
    model, layout = deployment.model, deployment.layout
    counted = parameters(model)
    layers = sum(
        count * _layer_bytes(deployment, kind.mixer, part)
        for kind, part, count in zip(model.layers, counted.layers, counted.counts, strict=True)
    )
    stages = np.asarray(layout.pp, float)
    resident = 1.0 - deployment.settings.weight_offload_share
    inner = (layers + _replica_bytes(deployment)) / stages + _mtp_bytes(deployment)
    return inner * resident + _ends_bytes(deployment) + _adapter_bytes(deployment)


def _adapter_bytes(deployment: Deployment) -> Any:
    """Return the bytes of LoRA adapters, which are sliced like the layers they stand beside."""
    settings, layout = deployment.settings, deployment.layout
    if not settings.lora_adapters or not settings.lora_rank:
        return 0.0
    one = adapter_parameters(deployment.model, settings.lora_rank) * 2.0
    return settings.lora_adapters * one / (_ranks(layout) * np.asarray(layout.pp, float))


def _ranks(layout: Layout) -> Any:
    return np.asarray(layout.tp, float) * layout.cp


def _layer_bytes(deployment: Deployment, mixer: Any, part: LayerParameters) -> Any:
    precision, layout = deployment.precision, deployment.layout
    stage = _ranks(layout) * layout.dp
    attention = _attention_weights(mixer, part.attention, deployment.model.hidden_size, layout)
    return (
        attention * bytes_per_element(precision.attention)
        + (part.ffn + part.shared) / _ranks(layout) * bytes_per_element(precision.ffn)
        + part.experts / stage * bytes_per_element(precision.experts)
        + (part.router + part.norms) * 2.0
    )


def _attention_weights(mixer: Any, total: int, hidden: int, layout: Layout) -> Any:
    """Return the mixer's weights on one rank."""
    tp = np.asarray(layout.tp, float)
    if isinstance(mixer, LinearAttention):
        return total / _ranks(layout)
    if not isinstance(mixer, Attention):
        return 0.0 * tp
    if mixer.kind in ("mla", "dsa"):
        repeated: Any = hidden * (mixer.kv_lora_rank + mixer.rope_head_dim + mixer.q_lora_rank)
        sliced: Any = total - repeated
        return sliced / tp + repeated
    value = 0 if mixer.k_is_v else mixer.v_head_dim
    key_value = 0 if mixer.shares_kv else hidden * mixer.kv_heads * (mixer.head_dim + value)
    copies = np.maximum(tp / max(mixer.kv_heads, 1), 1.0)
    return (total - key_value + key_value * copies) / tp


def _replica_bytes(deployment: Deployment) -> Any:
    """Return the bytes of copies of hot experts on one accelerator, all stages together."""
    replicas = deployment.settings.routing.replicated_experts
    if not replicas:
        return 0.0
    model, layout = deployment.model, deployment.layout
    per_layer = sum(k.count * expert_parameters(k.ffn, model.hidden_size)
                    for k in model.layers if k.ffn is not None and k.ffn.kind == "moe")
    stage = _ranks(layout) * layout.dp
    return replicas * per_layer * bytes_per_element(deployment.precision.experts) / stage


def _mtp_bytes(deployment: Deployment) -> Any:
    """Return the bytes of the drafting layers where the engine drafts with them."""
    speculation = deployment.settings.speculation
    if speculation is None:
        return 0.0
    model, layout = deployment.model, deployment.layout
    if speculation.method == "draft_model":
        from costsim.models.loader import load_model

        draft = parameters(load_model(speculation.draft_model)).total
        return draft * 2.0 / (_ranks(layout) * np.asarray(layout.pp, float))
    experts = bytes_per_element(deployment.precision.experts)
    stage = _ranks(layout) * layout.dp
    return drafter_parameters(model) * experts / np.where(is_moe(model), stage, _ranks(layout))


def drafter_parameters(model: Model) -> float:
    """Return the weights of the built-in drafter: MTP layers, or one layer of the last kind."""
    if model.mtp_parameters:
        return float(model.mtp_parameters)
    counted = parameters(model)
    return float(counted.layers[-1].total + 2 * model.hidden_size**2)


def _ends_bytes(deployment: Deployment) -> Any:
    """Return embedding, head and encoders; with pipeline stages the fuller of first and last."""
    model, layout, precision = deployment.model, deployment.layout, deployment.precision
    counted, ranks = parameters(model), _ranks(layout)
    first = (counted.embedding + counted.encoders) * 2.0 / ranks
    table = model.vocab_size * model.hidden_size * bytes_per_element(precision.head) / ranks
    head = table if counted.head else 0.0 * table
    # The first and the last stage are two; a tied head needs its copy of the table on the last.
    apart = np.maximum(first, table)
    return np.where(np.asarray(layout.pp) > 1, apart, first + head) + counted.other * 2.0
