"""Stacks that mix softmax attention with layers of constant state: DeltaNet, Mamba-2, KDA."""

from __future__ import annotations

from dataclasses import replace

from costsim.models.architecture import Attention, FeedForward, Layers, LinearAttention, Model
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.decoder import has_experts, with_mtp
from costsim.models.huggingface.pieces import (
    MAX_LAYERS,
    assemble,
    dense,
    experts,
    gqa,
    hidden_size,
    layer_count,
    mla,
    moe_layers,
)
from costsim.models.parameters import layer_parameters


def gated_deltanet(c: Config) -> LinearAttention:
    """Return Gated DeltaNet as Qwen3-Next and Qwen3.5 build it (arXiv:2412.06464)."""
    hidden = hidden_size(c)
    key_heads, value_heads = c.count("linear_num_key_heads"), c.count("linear_num_value_heads")
    key_dim, value_dim = c.count("linear_key_head_dim"), c.count("linear_value_head_dim")
    kernel = c.count("linear_conv_kernel_dim")
    keys, values = key_heads * key_dim, value_heads * value_dim
    inward = hidden * (2 * keys + 2 * values + 2 * value_heads)
    small = (2 * keys + values) * kernel + 2 * value_heads + value_dim
    return LinearAttention(
        "gated_deltanet", key_heads, value_heads, key_dim, value_dim, kernel,
        parameters=inward + values * hidden + small,
    )


def mamba2(c: Config) -> LinearAttention:
    """Return a Mamba-2 mixer (arXiv:2405.21060) under the names of Nemotron-H or Bamba."""
    hidden = hidden_size(c)
    heads = c.count("mamba_num_heads", "mamba_n_heads")
    head_dim = c.count("mamba_head_dim", "mamba_d_head")
    groups = c.count("n_groups", "mamba_n_groups", default=1)
    state = c.count("ssm_state_size", "mamba_d_state")
    kernel = c.count("conv_kernel", "mamba_d_conv", default=4)
    inner = heads * head_dim
    channels = inner + 2 * groups * state
    projected = inner + channels + heads
    bias = c.flag("use_bias", "mamba_proj_bias")
    c.value("mamba_proj_bias")
    conv_bias = c.flag("use_conv_bias", "mamba_conv_bias", default=True)
    weights = hidden * projected + channels * kernel + 3 * heads + inner + inner * hidden
    weights += (projected + hidden if bias else 0) + (channels if conv_bias else 0)
    return LinearAttention(
        "mamba2", groups, heads, state, head_dim, kernel, parameters=weights,
        chunk=c.count("chunk_size", "mamba_chunk_size", default=256),
    )


def kda(c: Config, linear: Config) -> LinearAttention:
    """Return Kimi Delta Attention (arXiv:2510.26692)."""
    hidden = hidden_size(c)
    heads = linear.count("linear_num_heads", "num_heads")
    dim = linear.count("linear_head_dim", "head_dim")
    kernel = linear.count("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    width = heads * dim
    forget = hidden * dim + dim * width + width + heads
    full_rank = linear.flag("use_full_rank_gate")
    gate = hidden * width if full_rank else hidden * dim + dim * width
    weights = 4 * hidden * width + 3 * width * kernel + forget + hidden * heads + gate + dim
    return LinearAttention("kda", heads, heads, dim, dim, kernel, parameters=weights)


def read_qwen_hybrid(c: Config) -> Model:
    """Qwen3-Next and Qwen3.5: three Gated DeltaNet layers, then one of gated attention."""
    layers = layer_count(c)
    interval = c.count("full_attention_interval", default=4)
    kinds = c.per_layer("layer_types", layers) or [
        "linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)
    ]
    gated = c.flag("attn_output_gate", default=True)
    full = gqa(c, output_gate=gated, qk_norm=True, qkv_bias=c.flag("attention_bias"))
    linear = gated_deltanet(c)
    feeds = _qwen_ffn(c, layers)
    stack = [
        Layers(1, linear if kind == "linear_attention" else full, feed)
        for kind, feed in zip(kinds, feeds, strict=True)
    ]
    model = assemble(c, stack)
    last = replace(model, layers=(*model.layers, Layers(1, full, feeds[-1])))
    with_heads = with_mtp(c, last)
    return replace(
        model, mtp_layers=with_heads.mtp_layers, mtp_parameters=with_heads.mtp_parameters
    )


def _qwen_ffn(c: Config, layers: int) -> list[FeedForward]:
    moe = moe_layers(c, layers) if has_experts(c) else [False] * layers
    mixture = experts(c, shared_gate=True) if any(moe) else None
    plain = dense(c) if not all(moe) else None
    c.value("intermediate_size")
    return [each for each in (mixture if m else plain for m in moe) if each is not None]


_NEMOTRON = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
# as newer versions of transformers spell them
_RENAMED = {"linear_attention": "mamba", "full_attention": "attention"}


def _nemotron_kinds(c: Config) -> list[str]:
    if c.has("hybrid_override_pattern"):
        pattern = c.text("hybrid_override_pattern")
        c.value("layers_block_type", "num_hidden_layers")
        unknown = sorted(set(pattern) - set(_NEMOTRON))
        if unknown:
            raise c.error(f"key 'hybrid_override_pattern' has unknown letters {unknown}")
        return [_NEMOTRON[letter] for letter in pattern]
    kinds = [_RENAMED.get(str(k), str(k)) for k in c.items("layers_block_type")]
    if not kinds:
        raise c.error("needs hybrid_override_pattern or layers_block_type")
    c.value("num_hidden_layers")
    return kinds


def read_nemotron_h(c: Config) -> Model:
    """Nemotron-H and Nemotron 3: each layer is a mixer or an FFN, not both.

    The FFN has no gate (squared ReLU); routed experts may work on a latent size.
    """
    kinds = _nemotron_kinds(c)[: MAX_LAYERS + 1]
    if len(kinds) > MAX_LAYERS:
        raise c.error(f"more than {MAX_LAYERS} layers")
    allowed = set(_NEMOTRON.values())
    if set(kinds) - allowed:
        raise c.error(f"unknown layer kinds {sorted(set(kinds) - allowed)}")
    bias = c.flag("mlp_bias")
    parts = {
        "attention": Layers(1, gqa(c, qkv_bias=c.flag("attention_bias")), None),
        "mamba": Layers(1, mamba2(c) if "mamba" in kinds else None, None),
    }
    if "mlp" in kinds:
        parts["mlp"] = Layers(1, None, dense(c, gated=False, bias=bias))
    if "moe" in kinds:
        latent = c.count("moe_latent_size", default=0, minimum=0)
        ffn = experts(c, gated=False, router_bias=True, latent_size=latent, bias=bias)
        parts["moe"] = Layers(1, None, ffn)
    c.value("intermediate_size", "n_shared_experts", "moe_shared_expert_overlap")
    model = assemble(c, [parts[kind] for kind in kinds])
    return _nemotron_mtp(c, model, parts)


def _nemotron_mtp(c: Config, model: Model, parts: dict[str, Layers]) -> Model:
    count = c.count("num_nextn_predict_layers", default=0, minimum=0)
    pattern = c.text("mtp_hybrid_override_pattern")
    kinds = [_NEMOTRON.get(letter, "") for letter in pattern] or c.items("mtp_layers_block_type")
    c.value("mtp_layers_block_type")
    spelled = [_RENAMED.get(str(kind), str(kind)) for kind in kinds]
    known = [parts[kind] for kind in spelled if kind in parts]
    if not count or not known:
        return model
    inner = sum(layer_parameters(model, each).total for each in known)
    joined = inner + 2 * model.hidden_size**2 + 3 * model.hidden_size
    return replace(model, mtp_layers=count, mtp_parameters=count * joined)


def read_kimi_linear(c: Config) -> Model:
    """Kimi Linear and Kimi K3: KDA layers, and latent attention without positions in between."""
    layers = layer_count(c)
    linear = c.section("linear_attn_config")
    if linear is None and not c.has("linear_num_heads"):
        raise c.error("key 'linear_attn_config' is missing")
    named = c.per_layer("layer_types", layers)
    full_layers = {i + 1 for i, kind in enumerate(named) if kind == "full_attention"}
    if linear is not None:
        full_layers |= {int(i) for i in linear.items("full_attn_layers")}
        linear.value("kda_layers")
    delta = kda(c, linear or c)
    full: Attention = mla(c)
    if c.flag("mla_use_output_gate"):
        full = replace(full, output_gate=True)
    feeds = _kimi_ffn(c, layers)
    stack = [
        Layers(1, full if i + 1 in full_layers else delta, feed) for i, feed in enumerate(feeds)
    ]
    if c.has("attn_res_block_size"):
        c.ignore(
            f"attn_res_block_size = {c.count('attn_res_block_size')}: attention over the residuals"
            " of earlier blocks is not modelled"
        )
    return with_mtp(c, assemble(c, stack))


def _kimi_ffn(c: Config, layers: int) -> list[FeedForward]:
    moe = moe_layers(c, layers)
    latent = c.count("routed_expert_hidden_size", default=0, minimum=0)
    c.flag("latent_moe_use_norm")
    mixture = experts(c, router_bias=True, latent_size=latent)
    plain = dense(c)
    return [mixture if each else plain for each in moe]


def read_mamba_attention(c: Config) -> Model:
    """Bamba and Granite 4 hybrids: Mamba-2 layers with attention at given places, FFN in all."""
    layers = layer_count(c)
    named = c.per_layer("layer_types", layers) or c.per_layer("layers_block_type", layers)
    at = set(c.items("attn_layer_indices"))
    kinds = [str(k) for k in named] or ["attention" if i in at else "mamba" for i in range(layers)]
    kinds = [_RENAMED.get(kind, kind) for kind in kinds]
    full, delta = gqa(c, qkv_bias=c.flag("attention_bias")), mamba2(c)
    routed = has_experts(c) and c.count("num_local_experts", default=0, minimum=0) > 0
    # Granite 4: a shared expert beside the routed ones, and a dense FFN where there are none
    ffn = experts(c) if routed else dense(
        c, "shared_intermediate_size", "intermediate_size", bias=c.flag("mlp_bias")
    )
    c.value("intermediate_size", "num_local_experts", "num_experts_per_tok")
    stack = [Layers(1, full if "attention" in kind else delta, ffn) for kind in kinds]
    return assemble(c, stack, tied=c.text("model_type").startswith("granite"))


def read_minimax_text(c: Config) -> Model:
    """MiniMax-Text-01 and M1: seven lightning layers, then one of softmax attention."""
    layers = layer_count(c)
    kinds = c.per_layer("layer_types", layers) or c.per_layer("attn_type_list", layers)
    full = gqa(c)
    hidden, width = hidden_size(c), full.heads * full.head_dim
    lightning = LinearAttention(
        "lightning", full.heads, full.heads, full.head_dim, full.head_dim, 0,
        parameters=5 * hidden * width + width, chunk=c.count("block_size", default=256),
    )
    ffn = experts(c)
    stack = [
        Layers(1, full if kind in (1, "full_attention") else lightning, ffn) for kind in kinds
    ]
    return assemble(c, stack)
