"""Engine presets: the default flags, reserves and overheads of vLLM, SGLang, TensorRT-LLM."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costsim import library, loading
from costsim.engine.settings import EngineSettings
from costsim.engine.words import routing_from, speculation_from
from costsim.errors import InputError
from costsim.ops.listed import ListedOperator

KIND = "engine/presets"


def list_engines() -> list[str]:
    """Return the names of all presets, the user's own included."""
    return library.names(KIND)


def load_settings(name: str, **changes: Any) -> EngineSettings:
    """Return the settings of an engine, with some of them changed.

    Args:
        name: of a preset such as ``"vllm"``, or a TOML file.
        changes: fields of `EngineSettings` that replace the preset's.

    Raises:
        InputError: unknown name, or a file that is wrong.
    """
    path = library.find(KIND, name)
    settings = _load(path.resolve(), path.stat().st_mtime_ns)
    return replace(settings, **changes) if changes else settings


def preset_sources(name: str) -> dict[str, str]:
    """Return where each figure of a preset comes from: ``setting -> source``."""
    return dict(_table(library.find(KIND, name))["sources"])


def preset_limits(name: str) -> list[dict[str, Any]]:
    """Return the rules of a preset for limits that depend on the accelerator."""
    return list(_table(library.find(KIND, name))["limits"])


def _table(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    from costsim.engine.preset_schema import Preset

    table = loading.read_toml(path)
    if isinstance(table.get("extends"), str):
        if path in below:
            raise InputError(f"{path}: extends itself")
        base = library.find(KIND, table["extends"])
        table = _merged(_table(base, (*below, path)), table, base.stem)
    return loading.validate(Preset, table, str(path)).model_dump()


def _merged(base: dict[str, Any], table: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a preset's table with what it leaves out taken from the one that it extends."""
    found = {**base, "kernels": base["kernels"] or name, **table}
    for part in ("settings", "sources"):
        if isinstance(table.get(part, {}), dict):
            found[part] = {**base[part], **table.get(part, {})}
    return found


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> EngineSettings:
    table = _table(path)
    known = {each.name for each in fields(EngineSettings)}
    given = {k: v for k, v in table["settings"].items() if v is not None and k in known}
    if "speculation" in given:
        given["speculation"] = speculation_from(given["speculation"])
    if "routing" in given:
        given["routing"] = routing_from(given["routing"], 0)
    return EngineSettings(name=path.stem, version=table["version"], kernels=table["kernels"],
                          **given, operators=tuple(map(_operator, table["operators"])),
                          replaces=frozenset(table["replaces"]))


def _operator(row: dict[str, Any]) -> ListedOperator:
    shape = row["gemm"] or {"bytes": row["bytes"]}
    return ListedOperator(row["name"], row["where"], "gemm" if row["gemm"] else "elementwise",
                          tuple(shape.items()), row["kind"], row["calls"])
