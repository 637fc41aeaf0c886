"""How a checkpoint stores its weights: the quantisation blocks of Hugging Face and ModelOpt."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from fnmatch import translate
from pathlib import Path
from typing import Any

from costsim.models.architecture import Quantisation
from costsim.models.huggingface.config import Config

_PARTS = ("attention", "ffn", "experts", "head")
# (weights, activations) of each named algorithm
_ALGORITHMS: dict[str, tuple[str, str]] = {
    "FP8": ("fp8", "fp8"),
    "FP8_PB_WO": ("fp8_block", "fp8"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", "fp8"),
    "MXFP8": ("fp8", "fp8"),
    "NVFP4": ("nvfp4", "nvfp4"),
    "NVFP4_AWQ": ("nvfp4", "nvfp4"),
    "W4A16_NVFP4": ("nvfp4", "bf16"),
    "W4A8_AWQ": ("int4", "fp8"),
    "W4A16_AWQ": ("int4", "bf16"),
    "W8A8_SQ_PER_CHANNEL": ("int8", "int8"),
    "INT8": ("int8", "int8"),
}
_PREFIX = re.compile(r"^(model\.|language_model\.|backbone\.|transformer\.)+")
# Names of the modules of each part, in groups of which a family has one; the group that the
# exclusions know best decides.
_MODULES: dict[str, tuple[tuple[str, ...], ...]] = {
    "attention": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ("self_attn.q_b_proj", "self_attn.kv_b_proj", "self_attn.o_proj"),
        ("linear_attn.in_proj_qkv", "linear_attn.out_proj"),
        ("mixer.in_proj", "mixer.out_proj"),
        ("mixer.q_proj", "mixer.k_proj", "mixer.v_proj", "mixer.o_proj"),
        ("attn.wq_b", "attn.wo_a"),
    ),
    "ffn": (
        ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        ("mlp.shared_experts.up_proj",), ("mlp.shared_expert.up_proj",),
        ("ffn.shared_experts.w1",), ("mixer.shared_experts.up_proj",), ("mixer.up_proj",),
    ),
    "head": (("lm_head",),),
}
_EXPERTS = {
    "gemma4_text": "experts.0.up_proj", "nemotron_h": "mixer.experts.0.up_proj",
    "deepseek_v4": "ffn.experts.0.w1", "deepseek_ref": "ffn.experts.0.w1",
    "llama4_text": "feed_forward.experts.0.up_proj",
    **dict.fromkeys(
        ("mixtral", "phimoe", "minimax_m2", "minimax_m3"), "block_sparse_moe.experts.0.w1"
    ),
}
# Keys of a block that are read, or that change no size and no rate.
_KEYS = Path(__file__).with_name("quantisation_keys.json")
# a share below this is of layers that lack the part (the first dense ones) or a stray module
_NOTED_SHARE = 0.1
_LONGEST_PATTERN = 1000


def part_of(module: str) -> str:
    """Return the part (``attention``, ``ffn``, ``experts``, ``head``, ``""``) of a module name."""
    if "lm_head" in module or module == "head":
        return "head"
    if "shared_expert" in module or "share_expert" in module:
        return "ffn"
    if "expert" in module or ("block_sparse_moe" in module and "gate" not in module):
        return "experts"
    if re.search(r"attn|attention|mixer\.(in|out|q|k|v|o)_proj|mixer\.conv", module):
        return "attention"
    return "ffn" if re.search(r"mlp|ffn|mixer\.(up|down)_proj|feed_forward", module) else ""


def read_quantisation(
    c: Config, extra: dict[str, Any] | None, layers: int, kind: str = ""
) -> tuple[Quantisation, list[str]]:
    """Return the data types of a checkpoint, and what they leave out.

    Args:
        c: the config that holds ``quantization_config`` (or none).
        extra: the table ``quantization`` of a ``hf_quant_config.json``, or None.
        layers: decoder layers, among which exceptions are counted.
        kind: ``model_type`` of the decoder, which says how its modules are called.
    """
    base = _plain_dtype(c)
    types = Quantisation(base, base, base, base, base, base, "bf16")
    block = {**_table(c, c.value("quantization_config")), **_table(c, extra)}
    expert_dtype = c.text("expert_dtype")
    if not block:
        return replace(types, activation=base), []
    known = set(json.loads(_KEYS.read_text(encoding="utf-8")))
    notes = [
        f"quantization_config.{key}: not modelled"
        for key in sorted(set(block) - known) if block[key]
    ]
    notes += _approximations(block)
    listed = block.get("quantized_layers") or {}
    if listed:
        types = _listed(types, listed, block, notes)
    else:
        types = _uniform(types, block, (layers, kind), notes)
    if expert_dtype == "fp4" and types.experts.startswith("fp8"):
        types = replace(types, experts="mxfp4")
    return replace(types, kv=_kv_dtype(block, types.kv)), notes


def _table(c: Config, block: Any) -> dict[str, Any]:
    """Return a quantisation block; raises InputError where it is no table."""
    if block is not None and not isinstance(block, dict):
        raise c.error(f"quantization_config must be a table, got {type(block).__name__}")
    return block or {}


def _approximations(block: dict[str, Any]) -> list[str]:
    """Return notes on what the data types of `costsim.dtypes` do not tell apart."""
    notes = []
    groups = block.get("config_groups")
    groups = list(groups.values()) if isinstance(groups, dict) else []
    if len(groups) > 1 and not block.get("quantized_layers"):
        notes.append(f"quantization_config.config_groups: the first of {len(groups)} is taken")
    weights = [g["weights"] for g in groups if isinstance(g, dict) and g.get("weights")]
    sizes = {
        each.get("group_size") for each in [*weights, {**block, "num_bits": block.get("bits")}]
        if each.get("num_bits") == 4 and each.get("type", "int") == "int"
    }
    odd = sorted(size for size in sizes if isinstance(size, int) and size not in (-1, 128))
    if odd:
        notes.append(f"quantization_config: int4 in groups of {odd[0]} counted as groups of 128")
    listed = block.get("quantized_layers") or {}
    if any("MXFP8" in str(how) for how in [block.get("quant_algo"), *listed.values()]):
        notes.append("quantization_config: MXFP8 counted as fp8, without its scale per 32 elements")
    return notes


def _plain_dtype(c: Config) -> str:
    given = c.text("torch_dtype", "dtype", default="bfloat16").removeprefix("torch.")
    if given == "float32":
        c.ignore("torch_dtype = 'float32': counted as bf16, in which engines serve it")
    return "fp16" if given == "float16" else "bf16"


def _kv_dtype(block: dict[str, Any], default: str) -> str:
    scheme = block.get("kv_cache_scheme") or block.get("kv_cache_quant_algo")
    if isinstance(scheme, dict):
        return {8: "fp8", 4: "nvfp4"}.get(scheme.get("num_bits", 0), default)
    return {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}.get(str(scheme).upper(), default)


def _algorithm(block: dict[str, Any]) -> tuple[str, str] | None:
    """Return (weights, activations) of a block's algorithm; None where it is unknown."""
    method = str(block.get("quant_method", "")).lower()
    named = str(block.get("quant_algo", "")).upper()
    if named in _ALGORITHMS:
        return _ALGORITHMS[named]
    if method == "mxfp4":
        return "mxfp4", "bf16"
    if method in ("fp8", "fbgemm_fp8"):
        return ("fp8_block" if block.get("weight_block_size") else "fp8"), "fp8"
    if method in ("awq", "gptq", "auto-round", "bitsandbytes", "hqq"):
        bits = block.get("bits", block.get("w_bit", 8 if block.get("load_in_8bit") else 4))
        return {4: ("int4", "bf16"), 8: ("int8", "bf16")}.get(bits)
    return _config_groups(block)


def _config_groups(block: dict[str, Any]) -> tuple[str, str] | None:
    """Return (weights, activations) of the first group of a compressed-tensors block."""
    groups = block.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        return None
    group = next(iter(groups.values()))
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    key = (str(weights.get("type")), int(weights.get("num_bits") or 0))
    if key == ("float", 4):
        dtype = "mxfp4" if weights.get("group_size") == 32 else "nvfp4"
    else:
        blocked = weights.get("strategy") == "block" or weights.get("block_structure")
        dtype = {
            ("float", 8): "fp8_block" if blocked else "fp8", ("int", 8): "int8",
            ("int", 4): "int4",
        }.get(key, "")
    if not dtype:
        return None
    bits = inputs.get("num_bits") if isinstance(inputs, dict) else None
    activation = {4: "nvfp4", 8: "int8" if dtype == "int8" else "fp8"}.get(bits or 16, "bf16")
    return dtype, activation


def _uniform(
    types: Quantisation, block: dict[str, Any], shape: tuple[int, str], notes: list[str]
) -> Quantisation:
    algorithm = _algorithm(block)
    if algorithm is None:
        shown = block.get("quant_algo") or block.get("quant_method")
        notes.append(f"quantization_config: method {shown!r} is not known; counted as unquantised")
        return types
    weights, activation = algorithm
    excluded = [
        str(pattern)
        for key in ("ignore", "exclude_modules", "modules_to_not_convert")
        for pattern in block.get(key) or []
    ]
    kept = {"activation": activation}
    for part in _PARTS:
        share = _excluded_share(part, excluded, *shape)
        # engines keep the head in 16 bit unless it is listed as quantised
        if share < 0.5 and part != "head":
            kept[part] = weights
        if _NOTED_SHARE < share < 1:
            notes.append(
                f"quantization_config: {share:.0%} of the {part} modules are excluded;"
                f" all counted as {kept.get(part, getattr(types, part))}"
            )
    return replace(types, **kept)


def _excluded_share(part: str, patterns: list[str], layers: int, kind: str) -> float:
    """Return the share of the part's modules that match a pattern."""
    if not patterns:
        return 0.0
    special = re.compile(r"[*\\]|re:")
    exact = {_PREFIX.sub("", p) for p in patterns if not special.search(p)}
    globs = _combined([p for p in patterns if special.search(p)])
    own = ((_EXPERTS.get(kind, "mlp.experts.0.up_proj"),),)
    shares = []
    for modules in own if part == "experts" else _MODULES[part]:
        places = [f"layers.{i}." for i in range(layers)] if part != "head" else [""]
        names = [place + module for place in places for module in modules]
        shares.append(sum(_matches(name, exact, globs) for name in names) / len(names))
    return max(shares)


def _combined(patterns: list[str]) -> re.Pattern[str]:
    """Return one expression for all wildcards and regular expressions; raises ValueError."""
    parts = []
    for pattern in patterns:
        if len(pattern) > _LONGEST_PATTERN:
            raise ValueError(f"a pattern of {len(pattern)} characters in the quantisation block")
        if pattern.startswith("re:"):
            parts.append(rf"(?:model\.)?(?:{pattern[3:]})")
        else:
            bare = _PREFIX.sub("", pattern)
            parts += [translate(bare), translate(bare + ".*")]
    try:
        return re.compile("|".join(parts) or r"(?!)")
    except re.error as error:
        raise ValueError(f"a pattern of the quantisation block is malformed: {error}") from None


def _matches(name: str, exact: set[str], globs: re.Pattern[str]) -> bool:
    steps = name.split(".")
    paths = {".".join(steps[:n]) for n in range(1, len(steps) + 1)}
    return bool(exact & (paths | set(steps)) or globs.match(name) or globs.match("model." + name))


def _listed(
    types: Quantisation, listed: dict[str, Any], block: dict[str, Any], notes: list[str]
) -> Quantisation:
    """Return the types of a block that names each quantised layer (MIXED_PRECISION)."""
    found: dict[str, Counter[tuple[str, str]]] = {part: Counter() for part in _PARTS}
    for module, how in listed.items():
        algorithm = _ALGORITHMS.get(str((how or {}).get("quant_algo", "")).upper())
        part = part_of(module)
        if algorithm is None:
            notes.append(f"quantization_config: {module}: {how!r} is not known")
        elif part:
            found[part][algorithm] += 1
    if str(block.get("quant_method")) == "fp8" and block.get("weight_block_size"):
        for part in ("attention", "ffn"):
            found[part][("fp8_block", "fp8")] += 1
    kept: dict[str, str] = {}
    for part, counts in found.items():
        if counts:
            (weights, activation), _ = counts.most_common(1)[0]
            kept[part] = weights
            if kept.get("activation", activation) != activation:
                notes.append(f"quantization_config: activations differ; {activation} of {part}")
            if part != "head":
                kept["activation"] = activation
            if len(counts) > 1:
                notes.append(f"quantization_config: {part} has mixed types; counted as {weights}")
    return replace(types, **kept)
