"""Counts against the modules that `transformers` builds: weights exact, FLOP within 2 %.

Small instances with random weights on the CPU; full-size ones on the meta device, where only
shapes exist.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="extra 'measure' not installed")
transformers = pytest.importorskip("transformers", reason="extra 'measure' not installed")

from costsim.models.architecture import Model  # noqa: E402
from costsim.models.count import flop_per_token, total_parameters  # noqa: E402
from costsim.models.huggingface import read_table  # noqa: E402

pytestmark = pytest.mark.peers
TOKENS = 32

BASE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 256, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
MLA = {
    "num_key_value_heads": 8, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 96, "first_k_dense_replace": 1,
    "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc",
}
DSA = {**MLA, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 64}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
}
MAMBA = {
    "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16,
    "conv_kernel": 4, "chunk_size": 16, "mamba_hidden_act": "silu", "mlp_hidden_act": "relu2",
}
GEMMA = {"head_dim": 32, "tie_word_embeddings": True, "sliding_window": 64}
LOCAL_GLOBAL = ["sliding_attention", "full_attention"] * 2

# model_type -> changes to BASE; families whose FLOP is compared too
SOFTMAX: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"head_dim": 32, "sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "phi3": {"sliding_window": 256},
    "gemma": {"head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {**GEMMA, "layer_types": LOCAL_GLOBAL},
    "gemma3_text": {**GEMMA, "layer_types": LOCAL_GLOBAL},
    "falcon": {
        "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False, "alibi": False,
        "ffn_hidden_size": 320, "tie_word_embeddings": True,
    },
    "opt": {
        "ffn_dim": 320, "word_embed_proj_dim": 128, "do_layer_norm_before": True,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "n_embd": 128, "n_layer": 4, "n_head": 8, "n_positions": 256, "n_inner": 320,
        "tie_word_embeddings": True,
    },
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 160, "decoder_sparse_step": 1},
    "qwen3_moe": {**MOE, "head_dim": 32, "decoder_sparse_step": 2, "mlp_only_layers": []},
    "gpt_oss": {
        "head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 64,
        "layer_types": LOCAL_GLOBAL,
    },
    "deepseek_v2": {**MLA, "topk_method": "greedy", "head_dim": 8},
    "deepseek_v3": MLA,
    "glm4_moe": {
        **MOE, "n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "head_dim": 32, "use_qk_norm": True, "attention_bias": True, "n_group": 1,
        "topk_group": 1,
    },
    "minimax_m2": {
        "num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 32, "use_qk_norm": True,
    },
    "olmo2": {},
    "phimoe": {
        "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 256,
        "attention_bias": True, "lm_head_bias": True,
    },
    "dbrx": {
        "d_model": 128, "n_heads": 8, "n_layers": 4, "max_seq_len": 256,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "mimo_v2_flash": {
        **MOE, "n_routed_experts": 8, "head_dim": 24, "v_head_dim": 16, "sliding_window": 64,
        "swa_num_attention_heads": 8, "swa_num_key_value_heads": 4, "swa_head_dim": 24,
        "swa_v_head_dim": 16, "hybrid_layer_pattern": [0, 1, 1, 1], "n_group": 1,
        "topk_group": 1, "moe_layer_freq": [0, 1, 1, 1],
    },
}
# families with indexers, compressors and recurrences: weights only, as the reference code runs
# another algorithm (masked dense attention, chunked scans; Llama 4 sends every token through every
# expert) than the one that is priced
OTHERS: dict[str, dict[str, Any]] = {
    "llama4_text": {
        "num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size_mlp": 640,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 64, "head_dim": 32,
        "use_qk_norm": True,
    },
    "deepseek_v32": DSA,
    "glm_moe_dsa": {**DSA, "n_group": 1, "topk_group": 1},
    "deepseek_v4": {
        "moe_intermediate_size": 96, "num_experts_per_tok": 2, "n_routed_experts": 8,
        "n_shared_experts": 1, "num_key_value_heads": 1, "head_dim": 32,
        "q_lora_rank": 48, "qk_rope_head_dim": 8, "o_groups": 2, "o_lora_rank": 16,
        "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8, "intermediate_size": 96,
        "sliding_window": 16, "compress_ratios": [0, 4, 128, 4], "num_hash_layers": 1,
        "hc_mult": 4,
    },
    "qwen3_next": {**MOE, **LINEAR, "shared_expert_intermediate_size": 64, "head_dim": 32},
    "qwen3_5_text": {**LINEAR, "head_dim": 32},
    "nemotron_h": {
        **MAMBA, "hybrid_override_pattern": "M-*E", "n_routed_experts": 8, "head_dim": 32,
        "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 64,
        "num_experts_per_tok": 2, "moe_intermediate_size": 96, "moe_latent_size": 64,
        "n_group": 1, "topk_group": 1,
    },
    "bamba": {
        "mamba_n_heads": 16, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16,
        "mamba_d_conv": 4, "mamba_chunk_size": 16, "attn_layer_indices": [1],
        "mamba_expand": 2,
    },
    "gemma4_text": {
        "head_dim": 32, "global_head_dim": 32, "tie_word_embeddings": True,
        "sliding_window": 64, "layer_types": LOCAL_GLOBAL, "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 512, "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
    },
    "kimi_linear": {
        **MLA, "num_experts": 8, "num_experts_per_token": 2, "num_shared_experts": 1,
        "linear_attn_config": {
            "full_attn_layers": [4], "kda_layers": [1, 2, 3], "head_dim": 16, "num_heads": 8,
            "short_conv_kernel_size": 4,
        },
    },
}
# further families of the common plan, told apart by traits: weights only
TRAITS: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in (
        "arcee", "granite", "smollm3", "exaone4", "olmo", "olmo3", "cohere", "cohere2",
        "nemotron", "starcoder2", "stablelm",
    )},
    "ernie4_5": {"head_dim": 16},
    "seed_oss": {"head_dim": 16, "attention_bias": True, "attention_out_bias": False},
    "glm": {"head_dim": 16, "attention_bias": True},
    "glm4": {"head_dim": 16, "attention_bias": True},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "ernie4_5_moe": {
        "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 96,
        "moe_num_shared_experts": 1, "moe_layer_start_index": 1,
    },
    "granitemoehybrid": {
        "mamba_n_heads": 16, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16,
        "mamba_d_conv": 4, "mamba_expand": 2, "num_local_experts": 8, "num_experts_per_tok": 2,
        "shared_intermediate_size": 64, "layer_types": ["mamba", "attention"] * 2,
    },
}


def _skip_unless_known(kind: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")


def _module(kind: str, table: dict[str, Any], device: str = "cpu") -> Any:
    _skip_unless_known(kind)
    table = {key: value for key, value in table.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(kind, **table)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager"
        ).eval()


def _weights(module: Any) -> int:
    """All parameters, and the router's correction biases, which checkpoints hold as buffers."""
    buffers = sum(b.numel() for name, b in module.named_buffers() if "correction" in name)
    return sum(p.numel() for p in module.parameters()) + buffers


def _case(kind: str, changes: dict[str, Any]) -> tuple[dict[str, Any], Model]:
    table = {**BASE, **changes, "model_type": kind}
    return table, read_table(table, kind)


@pytest.mark.parametrize("kind", [*SOFTMAX, *OTHERS, *TRAITS])
def test_weights_are_exact(kind: str) -> None:
    table, model = _case(kind, {**SOFTMAX, **OTHERS, **TRAITS}[kind])
    assert total_parameters(model) == _weights(_module(kind, table, "meta"))


@pytest.mark.parametrize("kind", list(SOFTMAX))
def test_flop_agree_within_two_percent(kind: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    table, model = _case(kind, SOFTMAX[kind])
    torch.manual_seed(0)
    module = _module(kind, table).requires_grad_(False)
    tokens = torch.randint(3, table["vocab_size"], (1, TOKENS))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(tokens, use_cache=False)
    # eager attention multiplies all pairs and masks half of them afterwards
    ours = TOKENS * flop_per_token(model, TOKENS)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.02)


FULL_SIZE = {
    "llama": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "mixtral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
        "num_local_experts": 8, "num_experts_per_tok": 2,
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [("llama", "llama-3.1-70b"), ("mixtral", "mixtral-8x7b")]
)
def test_full_size_on_the_meta_device(kind: str, name: str) -> None:
    from costsim.models.loader import load_model

    module = _module(kind, {**BASE, **FULL_SIZE[kind]}, "meta")
    assert total_parameters(load_model(name)) == _weights(module)


# towers with the sizes that are their defaults; class, and what the outer table needs
TOWERS = {
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", {}),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", {}),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", {}),
    "gemma3": ("Gemma3ForConditionalGeneration", {"vision_config": {"vision_use_head": False}}),
    "mistral3": ("Mistral3ForConditionalGeneration", {}),
    "voxtral": ("VoxtralForConditionalGeneration", {}),
    "qwen2_audio": ("Qwen2AudioForConditionalGeneration", {}),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_models_with_towers_are_exact(kind: str) -> None:
    import json

    name, changes = TOWERS[kind]
    _skip_unless_known(kind)
    config = transformers.AutoConfig.for_model(kind, **changes)
    with torch.device("meta"):
        module = getattr(transformers, name)._from_config(config)
    table = json.loads(config.to_json_string(use_diff=False))
    model = read_table({**table, "model_type": kind}, kind)
    assert total_parameters(model) == _weights(module)
    assert len(model.encoders) == 1


def test_flop_of_a_vision_tower_within_two_percent() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from costsim.models.multimodal import Images, image_work

    name = "Qwen3VLForConditionalGeneration"
    _skip_unless_known("qwen3_vl")
    vision = {
        "depth": 4, "hidden_size": 128, "num_heads": 4, "intermediate_size": 512,
        "out_hidden_size": 64, "patch_size": 16, "spatial_merge_size": 2,
        "deepstack_visual_indexes": [1], "num_position_embeddings": 64,
    }
    text = {**BASE, "hidden_size": 64, "head_dim": 8, "model_type": "qwen3_vl_text"}
    table = {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}
    config = transformers.AutoConfig.for_model(
        "qwen3_vl", text_config=text, vision_config=vision
    )
    config._attn_implementation = "eager"
    tower = getattr(transformers, name)._from_config(config).model.visual.eval()
    tower.requires_grad_(False)
    rows, columns = 16, 12
    pixels = torch.rand(rows * columns, 3 * 2 * 16 * 16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tower(pixels, grid_thw=torch.tensor([[1, rows, columns]]))
    ours = image_work(read_table(table), Images(rows * 16, columns * 16)).flop
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.02)
