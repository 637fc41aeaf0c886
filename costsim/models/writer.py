"""A model as a TOML file, and back: ``costsim model import``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from costsim.files import write_atomically
from costsim.models.architecture import Attention, Layers, Model, Quantisation
from costsim.models.loader import load_model

_TABLES = ("layers", "encoders", "quantisation")
_ALWAYS = ("kind", "heads", "kv_heads", "head_dim", "count", "width", "modality", "parameters")


def import_model(path: Path | str, name: str = "") -> Model:
    """Return the model of a ``config.json`` (or of a folder that holds one) under a name.

    Args:
        path: the file or folder.
        name: of the model; "" keeps the folder's or the file's.
    """
    model = load_model(path)
    return dataclasses.replace(model, name=name, title=name) if name else model


def save_model(model: Model, path: Path | str) -> Path:
    """Write a model as TOML, atomically; `load_model` of the file gives the model again.

    Args:
        model: the model.
        path: the file, or a folder in which ``NAME.toml`` is written.

    Returns:
        The file that was written.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{model.name}.toml"
    return write_atomically(path, model_toml(model))


def model_toml(model: Model) -> str:
    """Return a model as the text of a TOML file."""
    lines = [
        f"{key} = {_value(getattr(model, key))}"
        for key in _fields(Model)
        if key not in (*_TABLES, "name", "extra_parameters") and _wanted(model, key)
    ]
    if model.extra_parameters != model.hidden_size:
        lines.append(f"extra_parameters = {model.extra_parameters}")
    for layers in model.layers:
        lines += ["", "[[layers]]", *_layers(layers)]
    for encoder in model.encoders:
        lines += ["", "[[encoders]]", *_table(encoder)]
    if model.quantisation != Quantisation():
        lines += ["", "[quantisation]", *_table(model.quantisation)]
    return "\n".join(lines) + "\n"


def _layers(layers: Layers) -> list[str]:
    lines = [f"count = {layers.count}"]
    if layers.extra_parameters:
        lines.append(f"extra_parameters = {layers.extra_parameters}")
    if layers.mixer is not None:
        kind = "attention" if isinstance(layers.mixer, Attention) else "linear_attention"
        lines += ["", f"[layers.{kind}]", *_table(layers.mixer)]
    if layers.ffn is not None:
        lines += ["", "[layers.ffn]", *_table(layers.ffn)]
    return lines


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _wanted(item: Any, key: str) -> bool:
    """Say whether a field differs from its default or is always written."""
    field = next(f for f in dataclasses.fields(item) if f.name == key)
    always = key in _ALWAYS or key in ("title", "source", "hidden_size", "vocab_size")
    return always or getattr(item, key) != field.default


def _table(item: Any) -> list[str]:
    return [
        f"{key} = {_value(getattr(item, key))}" for key in _fields(item) if _wanted(item, key)
    ]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return repr(value)
