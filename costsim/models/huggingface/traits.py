"""What sets families of one plan apart: a table of traits by ``model_type``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What the code of a family fixes and its config does not say.

    Args:
        qkv_bias, output_bias: biases where ``attention_bias`` is absent.
        bias_on_output: ``attention_bias`` is about the output projection too.
        qk_norm: ``""``, ``"head"`` (one norm per head size) or ``"flat"`` (over all heads).
        extra_norms: norms of the hidden size besides the two that every layer has.
        norm_bias: norms are LayerNorm with a bias.
        sinks: layer kinds with a learned sink per head: ``""``, ``"all"`` or ``"sliding"``.
        gated: the FFN has a gate matrix.
        ffn_bias: the FFN, or each expert, has biases.
        router_bias: the router has a bias (or a correction bias) per expert.
        shared_gate: a sigmoid gate on the shared expert.
        tied: embeddings are tied where the config does not say.
        window: which layers slide where ``layer_types`` is absent: ``"all"``, ``"even"`` (0, 2 …),
            ``"pattern"`` (all but each n-th), ``"flagged"`` (only with ``use_sliding_window``).
        head_gate: a gate per head on the attention's output.
        head_bias: the LM head has a bias.
        final_norm: there is a norm with weights before the head.
    """

    qkv_bias: bool = False
    output_bias: bool = False
    bias_on_output: bool = True
    qk_norm: str = ""
    extra_norms: int = 0
    norm_bias: bool = False
    sinks: str = ""
    gated: bool = True
    ffn_bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False
    tied: bool = False
    window: str = "all"
    head_gate: bool = False
    head_bias: bool = False
    final_norm: bool = True


TRAITS: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": Traits(),
    "ministral3": Traits(),
    "qwen2": Traits(qkv_bias=True, bias_on_output=False, window="flagged"),
    "qwen3": Traits(qk_norm="head", window="flagged"),
    "qwen2_moe": Traits(qkv_bias=True, bias_on_output=False, window="flagged", shared_gate=True),
    "qwen3_moe": Traits(qk_norm="head", window="flagged"),
    "qwen3_vl_text": Traits(qk_norm="head", window="flagged"),
    "qwen3_vl_moe_text": Traits(qk_norm="head", window="flagged"),
    "mimo": Traits(qkv_bias=True, bias_on_output=False, window="flagged"),
    "phi3": Traits(),
    "phimoe": Traits(norm_bias=True, output_bias=True, qkv_bias=True),
    "mixtral": Traits(),
    "gemma": Traits(tied=True),
    "gemma2": Traits(extra_norms=2, tied=True, window="even"),
    "gemma3": Traits(extra_norms=2, qk_norm="head", tied=True, window="pattern"),
    "gemma3_text": Traits(extra_norms=2, qk_norm="head", tied=True, window="pattern"),
    "gpt_oss": Traits(
        qkv_bias=True, output_bias=True, sinks="all", ffn_bias=True, router_bias=True
    ),
    "minimax_m2": Traits(qk_norm="flat", router_bias=True),
    "glm4_moe": Traits(router_bias=True, bias_on_output=False),
    **dict.fromkeys(
        ("step3p5", "step3p7"), Traits(qk_norm="head", router_bias=True, head_gate=True)
    ),
    "mimo_v2_flash": Traits(sinks="sliding", router_bias=True, bias_on_output=False),
    **dict.fromkeys(("olmo2", "olmo3", "olmoe", "flex_olmo"), Traits(qk_norm="flat")),
    "olmo": Traits(extra_norms=-2, final_norm=False),
    **dict.fromkeys(("granite", "granitemoe", "granitemoeshared"), Traits()),
    "glm": Traits(bias_on_output=False),
    "glm4": Traits(extra_norms=2, bias_on_output=False),
    **dict.fromkeys(("cohere", "cohere2"), Traits(extra_norms=-1, tied=True)),
    "exaone4": Traits(qk_norm="head"),
    "apertus": Traits(qk_norm="head", gated=False),
    "arcee": Traits(gated=False),
    "nemotron": Traits(gated=False, norm_bias=True),
    "starcoder2": Traits(
        gated=False, norm_bias=True, qkv_bias=True, output_bias=True, ffn_bias=True, tied=True
    ),
    "stablelm": Traits(norm_bias=True),
    "ernie4_5_moe": Traits(router_bias=True, tied=True),
    "solar_open": Traits(router_bias=True),
    "dots1": Traits(qk_norm="head", router_bias=True),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe"), Traits(qk_norm="head", tied=True)),
    **dict.fromkeys(
        ("qwen2_vl_text", "qwen2_5_vl_text"),
        Traits(qkv_bias=True, bias_on_output=False, window="flagged"),
    ),
    "smollm3": Traits(window="flagged"),
    "seed_oss": Traits(),
    "ernie4_5": Traits(tied=True),
}
