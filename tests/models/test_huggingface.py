"""Import of ``config.json``: families, quantisation blocks, what is left out, and mistakes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.models.architecture import Attention, LinearAttention, Model
from costsim.models.count import kv_bytes_per_token, total_parameters
from costsim.models.describe import describe
from costsim.models.huggingface import READERS, read_config, read_table
from costsim.models.huggingface.config import neutral_keys

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    **LLAMA, "model_type": "deepseek_v3", "num_key_value_heads": 4, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "n_shared_experts": 1, "num_nextn_predict_layers": 1,
}
HYBRID = {
    **LLAMA, "model_type": "qwen3_next", "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
}
NEMOTRON = {
    **LLAMA, "model_type": "nemotron_h", "hybrid_override_pattern": "M-*-",
    "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2,
}
FIXTURES = [LLAMA, MIXTRAL, DEEPSEEK, HYBRID, NEMOTRON]


def with_quantisation(table: dict[str, Any], **block: Any) -> Model:
    return read_table({**table, "quantization_config": block})


# --- all that aiconfigurator ships -------------------------------------------------------------


def _silicon_configs() -> list[str]:
    import importlib.util

    found = importlib.util.find_spec("aiconfigurator_core")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "model_configs"
    names = sorted(path.name for path in folder.glob("*_config.json"))
    return [name for name in names if "hf_quant" not in name]


@pytest.mark.parametrize("name", _silicon_configs() or ["none"])
def test_every_config_of_aiconfigurator_loads(name: str, silicon: Path) -> None:
    model = read_config(silicon / "model_configs" / name)
    told = describe(model)
    assert told["total_parameters"] >= told["active_parameters"] > 1e8
    assert told["kv_bytes_per_token"] > 0 and told["by_context"]
    # what is left out is said in words, and it is little
    assert len(model.ignored) <= 6, model.ignored


def test_every_shared_config_loads(shared_data: Path) -> None:
    for path in sorted((shared_data / "model_configs").glob("*.json")):
        assert total_parameters(read_config(path)) > 1e8, path.name


# --- families ----------------------------------------------------------------------------------


def test_mla_is_read_past_its_misleading_keys() -> None:
    model = read_table({**DEEPSEEK, "head_dim": 999})
    assert kv_bytes_per_token(model, "bf16") == 4 * (16 + 8) * 2
    assert [layers.count for layers in model.layers] == [1, 3]
    assert model.mtp_layers == 1 and model.mtp_parameters > 0


def test_hybrid_stack_has_three_linear_layers_to_one() -> None:
    model = read_table(HYBRID)
    kinds = {type(layers.mixer): layers.count for layers in model.layers}
    assert kinds == {LinearAttention: 3, Attention: 1}


def test_layers_of_a_mixer_or_an_ffn_only() -> None:
    model = read_table(NEMOTRON)
    assert [(each.count, each.mixer is None) for each in model.layers] == [
        (1, False), (2, True), (1, False)
    ]
    listed = {k: v for k, v in NEMOTRON.items() if k != "hybrid_override_pattern"}
    listed.pop("num_hidden_layers")
    same = read_table({**listed, "layers_block_type": ["mamba", "mlp", "attention", "mlp"]})
    assert same.layers == model.layers


def test_interleaved_dense_and_moe() -> None:
    base = {**MIXTRAL, "model_type": "qwen3_moe", "moe_intermediate_size": 32}
    for changes, moe in (
        ({"decoder_sparse_step": 2}, 2), ({"mlp_only_layers": [0, 1, 2]}, 1),
        ({"first_k_dense_replace": 3}, 1), ({"moe_layer_freq": [0, 1, 1, 0]}, 2),
        ({"moe_layers_enum": "1,3"}, 2), ({"mlp_layer_types": ["dense"] * 3 + ["sparse"]}, 1),
    ):
        model = read_table({**base, **changes})
        assert sum(x.count for x in model.layers if x.ffn and x.ffn.kind == "moe") == moe


def test_sliding_layers_by_list_pattern_and_flag() -> None:
    def sliding(**changes: Any) -> int:
        model = read_table({**LLAMA, "sliding_window": 16, **changes})
        kinds = [(x.count, x.mixer) for x in model.layers]
        return sum(n for n, m in kinds if isinstance(m, Attention) and m.kind == "sliding")

    assert sliding(model_type="mistral") == 4
    assert sliding(model_type="qwen2") == 0
    assert sliding(model_type="qwen2", use_sliding_window=True, max_window_layers=3) == 1
    assert sliding(model_type="gemma2") == 2
    assert sliding(model_type="gemma3_text", sliding_window_pattern=2) == 2
    assert sliding(layer_types=["sliding_attention"] + ["full_attention"] * 3) == 1


def test_nas_blocks_differ_by_layer() -> None:
    keep = {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 3.0}}
    skip = {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.5}}
    table = {**LLAMA, "model_type": "nemotron-nas", "block_configs": [keep, skip, keep, skip]}
    model = read_table(table)
    assert [(x.count, x.mixer is None) for x in model.layers] == [(2, False), (2, True)]
    with pytest.raises(InputError, match="block_configs"):
        read_table({**table, "block_configs": [keep, 7, keep, keep]})


def test_text_config_and_vision_tower() -> None:
    vision = {
        "depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "patch_size": 16,
        "spatial_merge_size": 2, "out_hidden_size": 64,
    }
    model = read_table({
        "model_type": "qwen3_vl", "text_config": {**LLAMA, "model_type": "qwen3_vl_text"},
        "vision_config": vision, "tie_word_embeddings": True,
    })
    assert model.tied_embeddings and model.encoders[0].merge == 2
    unknown = read_table({**LLAMA, "vision_config": {"model_type": "new_eye"}})
    assert any("new_eye" in line for line in unknown.ignored)


@pytest.mark.published
def test_gemma_3_config_with_only_what_differs_from_the_defaults() -> None:
    # what google/gemma-3-4b-it holds: the rest is left to the code
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "sliding_window": 1024,
    }
    vision = {
        "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
        "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
        "patch_size": 14, "vision_use_head": False,
    }
    model = read_table({
        "model_type": "gemma3", "text_config": text, "vision_config": vision,
        "mm_tokens_per_image": 256,
    })
    assert total_parameters(model) == 4_300_079_472 and model.tied_embeddings
    assert sum(x.count for x in model.layers if getattr(x.mixer, "window", 0)) == 29


# --- what is left out --------------------------------------------------------------------------


def test_keys_that_are_not_read_are_said_and_neutral_ones_are_not() -> None:
    model = read_table({**LLAMA, "warp_drive": 7, "rope_theta": 1e6, "attention_dropout": 0.1})
    assert model.ignored == ("warp_drive = 7: not modelled",)
    assert {"rope_theta", "bos_token_id"} <= neutral_keys()


def test_no_neutral_key_is_one_that_a_size_depends_on() -> None:
    sizes = {key for table in FIXTURES for key in table} - {"model_type"}
    assert not sizes & neutral_keys()


def test_unknown_family_is_read_like_llama_and_says_so() -> None:
    model = read_table({**LLAMA, "model_type": "shiny_new"})
    assert "shiny_new" in model.ignored[0]
    assert total_parameters(model) == total_parameters(read_table(LLAMA))
    with pytest.raises(InputError, match="did you mean 'mixtral'"):
        read_table({"model_type": "mixtrall", "hidden_size": 64})


# --- quantisation ------------------------------------------------------------------------------

NVFP4_GROUP = {
    "input_activations": {"num_bits": 4, "type": "float", "group_size": 16},
    "weights": {"num_bits": 4, "type": "float", "group_size": 16},
}
W4A16 = {"input_activations": None, "weights": {"num_bits": 4, "type": "int", "group_size": 128}}
W8A8 = {"input_activations": {"num_bits": 8}, "weights": {"num_bits": 8, "type": "int"}}


@pytest.mark.parametrize(
    ("block", "weights", "activation"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block", "fp8"),
        ({"quant_method": "fp8"}, "fp8", "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 8}, "int8", "bf16"),
        ({"quant_method": "mxfp4"}, "mxfp4", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": NVFP4_GROUP}},
         "nvfp4", "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": W4A16}}, "int4", "bf16"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": W8A8}}, "int8", "int8"),
    ],
)
def test_quantisation_methods(block: dict[str, Any], weights: str, activation: str) -> None:
    types = with_quantisation(LLAMA, **block).quantisation
    assert (types.attention, types.ffn, types.activation) == (weights, weights, activation)
    assert types.head == "bf16" and types.kv == "bf16"


def test_excluded_modules_stay_in_16_bit() -> None:
    model = with_quantisation(
        MIXTRAL, quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"]
    )
    assert model.quantisation.attention == "bf16" and model.quantisation.experts == "mxfp4"
    part = with_quantisation(
        LLAMA, quant_method="fp8", ignore=["model.layers.0.mlp.gate_proj"]
    )
    assert part.quantisation.ffn == "fp8" and not part.ignored
    regex = with_quantisation(LLAMA, quant_method="fp8", ignore=["re:.*mlp\\..*"])
    assert regex.quantisation.ffn == "bf16" and regex.quantisation.attention == "fp8"


def test_mixed_precision_by_listed_layers() -> None:
    listed = {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp.experts.0.up_proj": {"quant_algo": "W4A16_NVFP4"},
    }
    types = with_quantisation(
        MIXTRAL, quant_algo="MIXED_PRECISION", quantized_layers=listed, kv_cache_scheme="FP8"
    ).quantisation
    assert (types.attention, types.experts, types.kv) == ("fp8", "nvfp4", "fp8")


def test_unknown_methods_and_keys_are_said() -> None:
    model = with_quantisation(LLAMA, quant_method="magic", sparsity_config={"format": "2:4"})
    assert model.quantisation.ffn == "bf16"
    assert any("magic" in line for line in model.ignored)
    assert any("sparsity_config" in line for line in model.ignored)


def test_what_data_types_do_not_tell_apart_is_said() -> None:
    small = {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}
    said = with_quantisation(
        LLAMA, quant_method="compressed-tensors", config_groups={"a": small, "b": W8A8}
    ).ignored
    assert any("groups of 32" in line for line in said)
    assert any("the first of 2" in line for line in said)
    assert any(
        "MXFP8" in line
        for line in with_quantisation(LLAMA, quant_method="modelopt", quant_algo="MXFP8").ignored
    )
    assert not with_quantisation(LLAMA, quant_method="awq", bits=4, group_size=128).ignored


def test_quantisation_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "torch_dtype": "float16"}))
    extra = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(extra))
    types = read_config(tmp_path / "config.json").quantisation
    assert (types.ffn, types.kv, types.embedding) == ("fp8", "fp8", "fp16")


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_experts_per_tok": 5}, "top_k = 5 experts per token is above the 4 experts"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads = 3"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size = 64"),
        ({"hidden_size": -64}, "must be a whole number >= 1"),
        ({"hidden_size": float("nan")}, "hidden_size"),
        ({"hidden_size": float("inf")}, "hidden_size"),
        ({"hidden_size": "64"}, "must be a whole number"),
        ({"vocab_size": None}, "'vocab_size' is missing"),
        ({"num_hidden_layers": 10**9}, "at most 10000"),
        ({"layer_types": ["full_attention"]}, "has 1 entries for 4 layers"),
        ({"layer_types": 3}, "must be a list"),
        ({"tie_word_embeddings": "yes"}, "must be true or false"),
        ({"quantization_config": "fp8"}, "must be a table"),
        ({"vision_config": [1]}, "must be a table"),
        ({"moe_layers_enum": "1,x"}, "cannot be read"),
        ({"quantization_config": {"quant_method": "fp8", "ignore": ["re:("]}}, "malformed"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**MIXTRAL, **changes}))
    with pytest.raises(InputError) as error:
        read_config(path)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"model_type": "llama"', "\x00", "null"])
def test_malformed_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError):
        read_config(tmp_path / "config.json")


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**13), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=4), st.dictionaries(st.text(max_size=3), st.integers()),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_junk_gives_a_model_or_one_clear_line(data: st.DataObject) -> None:
    table = copy.deepcopy(data.draw(st.sampled_from(FIXTURES)))
    extra = ["layer_types", "quantization_config", "sliding_window", "vision_config", "head_dim"]
    key = data.draw(st.sampled_from([*table, *extra]))
    table[key] = data.draw(JUNK)
    try:
        model = read_table(table)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert total_parameters(model) > 0


def test_registry_covers_the_families_asked_for() -> None:
    wanted = {
        "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v2",
        "deepseek_v3", "gpt_oss", "gemma2", "phi3", "dbrx", "grok-1", "falcon", "opt", "gpt2",
    }
    assert wanted <= set(READERS)
