"""Engine presets: the default flags, reserves and overheads of vLLM, SGLang, TensorRT-LLM."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costsim import library, loading
from costsim.engine.settings import EngineSettings

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


def _table(path: Path) -> dict[str, Any]:
    from costsim.engine.preset_schema import Preset

    return loading.validate(Preset, loading.read_toml(path), str(path)).model_dump()


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> EngineSettings:
    table = _table(path)
    known = {each.name for each in fields(EngineSettings)}
    given = {k: v for k, v in table["settings"].items() if v is not None and k in known}
    return EngineSettings(name=path.stem, version=table["version"], **given)
