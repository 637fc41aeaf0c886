"""Models by name, from a TOML file, or from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from costsim import library
from costsim.errors import InputError, suggestion, unknown_name
from costsim.loading import read_toml, validate
from costsim.models.architecture import Model

_ALIASES = Path(__file__).with_name("aliases.json")
# What makers and packagers put around the name of a model with the same architecture.
_DECORATION = re.compile(r"-(instruct(-\d{4}|-v[\d.]+)?|chat|hf|base|it|v0\.\d|\d{4})$")


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Return a model.

    Args:
        name_or_path: a name in the library (``"llama-3.1-70b"``), its name on Hugging Face
            (``"meta-llama/Llama-3.1-70B"``), a TOML file, a ``config.json``, or a folder that
            holds one.

    Raises:
        InputError: unknown name (the nearest is suggested), or a file that is wrong.
    """
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".json":
        from costsim.models.huggingface import read_config

        return read_config(path)
    if path.is_file():
        return read_model_toml(path)
    if path.suffix == ".toml" and path.parent != Path("."):
        raise InputError(f"{name}: no such file")
    return _from_library(name.removesuffix(".toml"))


def list_models() -> list[str]:
    """Return the names of all models in the library, the user's own included."""
    return library.names("models")


def aliases() -> dict[str, str]:
    """Return other names of models in the library (lower case), with the library's name."""
    return dict(json.loads(_ALIASES.read_text(encoding="utf-8")))


def read_model_toml(path: Path | str) -> Model:
    """Return the model of a TOML file, named after the file.

    Raises:
        InputError: the file is missing, malformed, or has a wrong or unknown key.
    """
    from costsim.models.schema import ModelTable

    path = Path(path)
    return validate(ModelTable, read_toml(path), str(path)).build(path.stem)


@lru_cache(maxsize=256)
def _read_once(path: Path, modified_ns: int) -> Model:
    return read_model_toml(path)


def _from_folder(folder: Path) -> Model:
    from costsim.models.huggingface import read_config

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: the folder has no config.json")
    return read_config(folder / "config.json")


def _from_library(name: str) -> Model:
    known, other = set(list_models()), aliases()
    for spelling in _spellings(name):
        spelling = other.get(spelling, spelling)
        if spelling in known:
            path = library.find("models", spelling)
            return _read_once(path, path.stat().st_mtime_ns)
    hint = suggestion(name, known | set(other))
    if hint:
        raise InputError(f"unknown model '{name}'{hint}")
    raise unknown_name("model", name, known)


def _spellings(name: str) -> list[str]:
    """Return the ways a name may stand in the library, the likeliest first."""
    plain = name.strip().lower().replace("_", "-")
    last = plain.rsplit("/", 1)[-1]
    bare = last.removeprefix("meta-")
    found = [plain, last, bare]
    while _DECORATION.search(bare):
        bare = _DECORATION.sub("", bare)
        found.append(bare)
    return found
