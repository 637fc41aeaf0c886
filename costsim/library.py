"""Where named data files are found: the user's own folders first, then those that ship."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from costsim.errors import InputError, unknown_name

_PACKAGE = Path(__file__).resolve().parent


def user_home() -> Path:
    """Return the folder of the user's own profiles: ``$COSTSIM_HOME`` or ``~/.costsim``."""
    return Path(os.environ.get("COSTSIM_HOME", Path.home() / ".costsim"))


def folders(kind: str) -> list[Path]:
    """Return the folders searched for data of a kind, first found wins.

    Args:
        kind: ``"hardware_profiles"``, ``"scenarios"``, ``"models"`` …; the working
            directory's folder of that name comes first, then the user's, then what ships.
    """
    return [_resolved(folder) for folder in _existing(kind)]


def _existing(kind: str) -> list[str]:
    """Return the folders of a kind that there are; strings, since a search asks for them often."""
    candidates = (
        os.path.join(os.getcwd(), kind),
        os.path.join(os.environ.get("COSTSIM_HOME") or user_home(), kind),
        os.path.join(_PACKAGE, kind), os.path.join(_PACKAGE.parent, kind),
        os.path.join(_PACKAGE, kind, "library"))
    return list(dict.fromkeys(folder for folder in candidates if os.path.isdir(folder)))


@lru_cache(maxsize=256)
def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def exists(kind: str, name: str, suffix: str = ".toml") -> bool:
    """Return whether there is data of exactly this name.

    Args:
        kind: as in `folders`.
        name: without suffix.
        suffix: of the file.
    """
    return any(os.path.isfile(os.path.join(folder, name + suffix)) for folder in _existing(kind))


def names(kind: str, suffixes: tuple[str, ...] = (".toml",)) -> list[str]:
    """Return the sorted names (file stems) of all data of a kind."""
    found = {p.stem for f in folders(kind) for p in f.iterdir() if p.suffix in suffixes}
    return sorted(found)


def find(kind: str, name: str, suffixes: tuple[str, ...] = (".toml",)) -> Path:
    """Return the file of a name, or of a path that was given instead of a name.

    Args:
        kind: as in `folders`.
        name: a name without suffix, or a path to a file.
        suffixes: the file types looked for.

    Raises:
        InputError: there is no such file; the nearest name is suggested.
    """
    looks_like_path = os.sep in name or name.endswith(suffixes)
    if looks_like_path:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            raise InputError(f"{name}: is a folder; a {kind.replace('_', ' ')} file is needed")
        if os.sep in name or path.suffix == "":
            raise InputError(f"{name}: no such file")
        name = path.stem
    spellings = (name, name.lower().replace("-", "_"), name.lower().replace("_", "-"))
    for folder in folders(kind):
        for spelling in spellings:
            for suffix in suffixes:
                path = folder / f"{spelling}{suffix}"
                if path.is_file():
                    return path
    raise unknown_name(kind.rstrip("s").replace("_", " "), name, names(kind, suffixes))
