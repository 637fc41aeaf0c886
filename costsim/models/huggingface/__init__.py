"""Import of Hugging Face ``config.json``: one reader per family, chosen by ``model_type``.

What a config has and the description leaves out stands in ``Model.ignored``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from costsim.errors import InputError, unknown_name
from costsim.loading import read_json
from costsim.models.architecture import Model
from costsim.models.huggingface import deepseek, gemma, hybrid, others
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.decoder import read_decoder
from costsim.models.huggingface.quantisation import read_quantisation
from costsim.models.huggingface.towers import read_encoders
from costsim.models.huggingface.traits import TRAITS, Traits

Reader = Callable[[Config], Model]

READERS: dict[str, Reader] = {
    **dict.fromkeys(TRAITS, read_decoder),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2", "mistral4"), deepseek.read_mla),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), deepseek.read_dsa),
    **dict.fromkeys(("deepseek_v4", "deepseek_ref"), deepseek.read_v4),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), hybrid.read_qwen_hybrid
    ),
    "nemotron_h": hybrid.read_nemotron_h,
    "kimi_linear": hybrid.read_kimi_linear,
    **dict.fromkeys(("bamba", "granitemoehybrid"), hybrid.read_mamba_attention),
    **dict.fromkeys(("minimax", "minimax_text_01"), hybrid.read_minimax_text),
    "gemma4_text": gemma.read_gemma4,
    "llama4_text": others.read_llama4,
    "dbrx": others.read_dbrx,
    **dict.fromkeys(("grok-1", "grok_1"), others.read_grok),
    **dict.fromkeys(("falcon", "RefinedWeb", "RefinedWebModel"), others.read_falcon),
    "opt": others.read_opt,
    "gpt2": others.read_gpt2,
    "nemotron-nas": others.read_nas,
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl_text"), others.read_minimax_m3),
}
# the decoder's type where a multimodal config does not repeat it under text_config
_TEXT_TYPES = {
    "minimax_m3_vl": "minimax_m3", "gemma3": "gemma3_text", "llama4": "llama4_text",
    "qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text",
}
_COMMON = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def read_config(path: Path | str) -> Model:
    """Return the model of a ``config.json``.

    A ``hf_quant_config.json`` beside it (or ``NAME_hf_quant_config.json`` beside
    ``NAME_config.json``) is read too.

    Raises:
        InputError: the file is malformed, lacks a key, or is of a family that cannot be read.
    """
    path = Path(path)
    beside = path.with_name(path.name.replace("config.json", "hf_quant_config.json"))
    extra = None
    if beside != path and beside.is_file():
        extra = (read_json(beside) or {}).get("quantization")
    name = path.parent.name if path.name == "config.json" else path.stem.removesuffix("_config")
    return read_table(read_json(path), name, str(path), extra)


def read_table(
    table: Any, name: str = "model", where: str = "config", quant: dict[str, Any] | None = None
) -> Model:
    """Return the model of the table that a ``config.json`` holds.

    Args:
        table: the parsed file.
        name: of the model.
        where: named in errors.
        quant: the table ``quantization`` of a ``hf_quant_config.json``.
    """
    try:
        return _read(Config(table, where), name, quant)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        # a value of a kind that no checkpoint has; the message is all that its owner needs
        raise InputError(f"{where}: cannot be read: {error!r}") from error


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    """Return values that checkpoints of a family leave to the defaults of its code."""
    path = Path(__file__).with_name("defaults.json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _read(whole: Config, name: str, quant: dict[str, Any] | None) -> Model:
    text = next(
        (s for s in map(whole.section, ("text_config", "llm_config", "language_config")) if s),
        whole,
    )
    kind = text.text("model_type") or whole.text("model_type")
    kind = _TEXT_TYPES.get(kind, kind)
    if text is whole and whole.text("model_type") in _TEXT_TYPES:
        kind = _TEXT_TYPES[whole.text("model_type")]
    text.fill(_defaults().get(kind, {}))
    model = _reader(kind, text)(text)
    if text is not whole:
        model = _outer_keys(whole, model)
    layers = sum(each.count for each in model.layers)
    holder = whole if whole.has("quantization_config") else text
    types, notes = read_quantisation(holder, quant, layers, kind)
    whole.ignored.extend(notes)
    for each in (whole, text):
        each.value("torch_dtype", "dtype", "quantization_config", "expert_dtype")
    return replace(
        model, name=name, title=name, family=kind, quantisation=types,
        encoders=read_encoders(whole, model.hidden_size), source=f"config.json of {name}",
        ignored=whole.left_out(),
    )


def _outer_keys(whole: Config, model: Model) -> Model:
    """Return the model with what a multimodal config says outside its decoder's table."""
    tied = whole.flag("tie_word_embeddings", default=model.tied_embeddings)
    return replace(model, tied_embeddings=tied)


def _reader(kind: str, c: Config) -> Reader:
    if kind in READERS:
        return READERS[kind]
    missing = [key for key in _COMMON if not c.has(key)]
    if not missing and c.has("kv_lora_rank"):
        c.ignore(f"model_type {kind!r} is not known: read like DeepSeek-V3")
        return deepseek.read_mla
    if not missing:
        c.ignore(f"model_type {kind!r} is not known: read as a decoder like Llama")
        return lambda config: read_decoder(config, Traits())
    error = unknown_name("model_type", " ".join(kind.split()), READERS)
    raise InputError(f"{c.where}: {error}; and the common keys {', '.join(missing)} are missing")
