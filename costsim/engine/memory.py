"""What fits: weights, activations and reserve, and the KV cache that the rest holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.deployment import Deployment
from costsim.engine.weights import weights_bytes
from costsim.errors import DoesNotFitError
from costsim.models.architecture import Attention, Layers, LinearAttention
from costsim.models.cache import layer_kv_bytes, layer_kv_bytes_per_token, state_bytes
from costsim.ops.attention import local_kv_heads

_ACTIVATION_BYTES = 2.0


@dataclass(frozen=True)
class MemoryBudget:
    """Memory of one accelerator; values are arrays that broadcast.

    Args:
        capacity_bytes: of the accelerator.
        weights_bytes: of the fullest accelerator.
        activation_bytes: buffers of the largest step.
        reserve_bytes: what the engine keeps free or uses itself.
        kv_cache_bytes: left for the KV cache (host memory included where it is offloaded there).
        kv_bytes_per_token: that a token adds on each accelerator that holds it, in layers
            without a window.
        request_bytes: that a request adds besides: full windows, recurrent states.
        kv_capacity_tokens: of the whole replica; infinite where no layer grows.
        fits: weights, activations and reserve leave room for a cache.
    """

    capacity_bytes: Any
    weights_bytes: Any
    activation_bytes: Any
    reserve_bytes: Any
    kv_cache_bytes: Any
    kv_bytes_per_token: Any
    request_bytes: Any
    kv_capacity_tokens: Any
    fits: Any


def memory_budget(deployment: Deployment) -> MemoryBudget:
    """Return the memory budget of a deployment.

    Args:
        deployment: the deployment; fields of its layout and hardware may be arrays.

    Source: the engines' own rules; see ``memory_rule`` of `EngineSettings`.
    """
    settings, hardware = deployment.settings, deployment.hardware
    weights, activations = weights_bytes(deployment), activation_bytes(deployment)
    reserve = np.asarray(settings.reserve_bytes, float)
    capacity = np.asarray(hardware.memory_bytes, float)
    free = _cache_bytes(settings.memory_rule, settings.memory_utilization, capacity, weights,
                        activations, reserve)
    fits = free > 0
    cache = np.maximum(free, 0.0) / (1.0 - min(settings.kv_offload_share, 0.99))
    growth = _kv_bytes(deployment, np.inf)
    tokens = np.where(growth > 0, cache / np.maximum(growth, 1e-30), np.inf)
    tokens = np.floor(tokens / settings.kv_block_tokens) * settings.kv_block_tokens
    return MemoryBudget(
        capacity_bytes=capacity, weights_bytes=weights, activation_bytes=activations,
        reserve_bytes=reserve, kv_cache_bytes=cache, kv_bytes_per_token=growth,
        request_bytes=_kv_bytes(deployment, None), fits=fits,
        kv_capacity_tokens=tokens * np.asarray(deployment.layout.dp, float),
    )


def _cache_bytes(
    rule: str, share: float, capacity: Any, weights: Any, activations: Any, reserve: Any
) -> Any:
    """Return what the cache may take; negative where the model does not fit."""
    if rule == "free":
        return share * (capacity - weights - activations - reserve)
    if rule == "static":
        outside = (1.0 - share) * capacity - activations - reserve
        return np.minimum(share * capacity - weights, share * capacity - weights + outside)
    return share * capacity - weights - activations - reserve


def request_kv_bytes(deployment: Deployment, context: Any) -> Any:
    """Return the bytes that a request of ``context`` tokens holds on each of its accelerators.

    Args:
        deployment: the deployment.
        context: tokens, number or array.
    """
    return _kv_bytes(deployment, np.asarray(context, float))


def _kv_bytes(deployment: Deployment, context: Any) -> Any:
    """Return cache bytes per accelerator: at a context, per token (inf), or fixed parts (None)."""
    layout, dtype = deployment.layout, deployment.precision.kv
    total: Any = 0.0
    for kind in deployment.model.layers:
        size = _layer_cache(kind, context, dtype, deployment.settings.kv_block_tokens)
        total = total + kind.count * size * _kv_share(kind, layout.tp)
    share = np.asarray(layout.pp, float) * layout.cp
    states = state_bytes(deployment.model) / (share * np.asarray(layout.tp, float))
    growing = isinstance(context, float) and context == np.inf
    return total / share + (0.0 if growing else states)


def _layer_cache(kind: Layers, context: Any, dtype: str, block: int) -> Any:
    mixer = kind.mixer
    window = mixer.window if isinstance(mixer, Attention) else 0
    windowed = isinstance(mixer, Attention) and mixer.kind in ("sliding", "chunked")
    if context is None:
        return layer_kv_bytes(kind, window, dtype) if windowed else 0.0
    if isinstance(context, float) and context == np.inf:
        return 0.0 if windowed else layer_kv_bytes_per_token(kind, dtype)
    return layer_kv_bytes(kind, np.ceil(context / block) * block, dtype)


def _kv_share(kind: Layers, tp: Any) -> Any:
    """Return the share of a layer's cache that one tensor-parallel rank holds."""
    mixer = kind.mixer
    if not isinstance(mixer, Attention):
        return 0.0
    if mixer.kind in ("mla", "dsa"):
        return np.ones_like(np.asarray(tp, float))
    return local_kv_heads(mixer.kv_heads, tp) / mixer.kv_heads


def max_batch(
    deployment: Deployment, isl: Any, osl: Any = 0.0, budget: MemoryBudget | None = None
) -> Any:
    """Return how many requests a replica holds at once (0: none).

    Requests are at different places of their output, so B of them hold B times the mean, plus
    two standard deviations of the sum (uniform progress); never more than B of full length.

    Args:
        deployment: the deployment.
        isl, osl: prompt and output tokens of a request.
        budget: of the deployment, where it is known already.
    """
    budget = budget or memory_budget(deployment)
    isl, osl = np.asarray(isl, float), np.asarray(osl, float)
    full = request_kv_bytes(deployment, isl + osl)
    mean = request_kv_bytes(deployment, isl + 0.5 * osl)
    room = budget.kv_cache_bytes
    # B·mean + 2·sd·√B = room, sd of uniform progress = (full − mean)/√3.
    two_sd = 2.0 * np.maximum(full - mean, 0.0) / np.sqrt(3.0)
    root = (np.sqrt(two_sd**2 + 4.0 * mean * room) - two_sd) / (2.0 * np.maximum(mean, 1e-30))
    many = np.maximum(root**2, room / np.maximum(full, 1e-30))
    each = np.where(budget.fits & (room >= full), np.floor(many + 1e-9), 0.0)
    each = np.minimum(each, deployment.settings.max_num_seqs)
    return each * np.asarray(deployment.layout.dp, float)


def check_fits(deployment: Deployment, context: float = 0) -> None:
    """Refuse a deployment whose weights, or one request of ``context`` tokens, do not fit.

    Raises:
        DoesNotFitError: one line with what is needed and what there is, per accelerator.
    """
    budget = memory_budget(deployment)
    where = (f"{deployment.model.name} on {deployment.accelerators} x {deployment.hardware.name} "
             f"({deployment.layout})")
    if not np.all(budget.fits):
        need = np.max(budget.weights_bytes + budget.activation_bytes + budget.reserve_bytes) / 1e9
        have = np.min(budget.capacity_bytes) * deployment.settings.memory_utilization / 1e9
        raise DoesNotFitError(
            f"{where} does not fit: weights, activations and reserve need {need:.1f} GB per "
            f"accelerator, {have:.1f} GB are usable; use more accelerators or a smaller data type"
        )
    if context and np.max(max_batch(deployment, context, 0.0, budget)) < 1:
        tokens = np.min(budget.kv_capacity_tokens / deployment.layout.dp)
        raise DoesNotFitError(f"{where}: a request of {context:.0f} tokens exceeds the KV cache "
                              f"of {tokens:.0f} tokens")


def activation_bytes(deployment: Deployment) -> Any:
    """Return the bytes of the buffers of the largest step on one accelerator.

    Residual stream, a normed copy, and the widest sublayer's inputs and outputs, for the token
    budget; logits in fp32 for the running requests. Buffers are reused from layer to layer.
    """
    model, settings = deployment.model, deployment.settings
    ranks = np.asarray(deployment.layout.tp, float) * deployment.layout.cp
    tokens = float(settings.max_num_batched_tokens)
    widest: Any = 0.0
    for kind in model.layers:
        widest = np.maximum(widest, _layer_width(kind, ranks))
    hidden = 3.0 * model.hidden_size * model.hyper_connections
    rows = float(min(settings.max_num_seqs, settings.max_num_batched_tokens))
    logits = rows * model.vocab_size / ranks * bytes_per_element("fp32")
    return tokens * (hidden + widest) * _ACTIVATION_BYTES + logits


def _layer_width(kind: Layers, ranks: Any) -> Any:
    """Return the elements per token of a layer's widest inner buffers on one rank."""
    mixer, ffn = kind.mixer, kind.ffn
    inner: Any = 0.0
    if isinstance(mixer, Attention):
        query = mixer.heads * (mixer.head_dim + mixer.v_head_dim) / ranks
        inner = query + 2.0 * local_kv_heads(mixer.kv_heads, ranks) * mixer.head_dim
    elif isinstance(mixer, LinearAttention):
        heads = 2 * mixer.key_heads * mixer.key_dim + 2 * mixer.value_heads * mixer.value_dim
        inner = heads / ranks
    if ffn is None or ffn.kind == "none":
        return inner
    copies = ffn.top_k if ffn.kind == "moe" else 1
    return np.maximum(inner, copies * (3.0 if ffn.gated else 2.0) * ffn.width / ranks)
