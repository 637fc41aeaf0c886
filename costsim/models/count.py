"""All counts of a model in one place: weights, cache and arithmetic."""

from __future__ import annotations

from costsim.models.cache import (
    kv_bytes,
    kv_bytes_per_token,
    layer_kv_bytes,
    layer_kv_bytes_per_token,
    state_bytes,
)
from costsim.models.flop import attended_tokens, flop_per_token, layer_flop_per_token
from costsim.models.parameters import (
    LayerParameters,
    ModelParameters,
    active_parameters,
    attention_parameters,
    expert_parameters,
    layer_parameters,
    parameters,
    total_parameters,
)

__all__ = [
    "LayerParameters",
    "ModelParameters",
    "active_parameters",
    "attended_tokens",
    "attention_parameters",
    "expert_parameters",
    "flop_per_token",
    "kv_bytes",
    "kv_bytes_per_token",
    "layer_flop_per_token",
    "layer_kv_bytes",
    "layer_kv_bytes_per_token",
    "layer_parameters",
    "parameters",
    "state_bytes",
    "total_parameters",
]
