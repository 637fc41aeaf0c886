"""The dated tables of prices: a user's own file of the same name replaces the one that ships."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from costsim.errors import InputError, unknown_name
from costsim.library import folders
from costsim.loading import read_toml

_SHIPPED = Path(__file__).resolve().parent / "data"
TABLES = ("api_prices", "electricity", "ownership", "providers", "purchases", "rents")


def table_path(name: str) -> Path:
    """Return the file of a table: ``prices/<name>.toml`` of the user first, then the shipped.

    Args:
        name: one of `TABLES`.
    """
    if name not in TABLES:
        raise unknown_name("price table", name, TABLES)
    for folder in [*folders("prices"), _SHIPPED]:
        path = folder / f"{name}.toml"
        if path.is_file():
            return path
    raise InputError(f"price table '{name}': the file {name}.toml is missing")


def shipped_path(name: str) -> Path:
    """Return the file of a table that ships."""
    return _SHIPPED / f"{name}.toml"


def read_table(name: str) -> dict[str, Any]:
    """Return the raw table of a name; a file is read again only when it changed.

    A user's table with ``extends = "shipped"`` adds to the shipped one: its lists come after those,
    its other keys replace them.
    """
    path = table_path(name)
    own = _read(path, path.stat().st_mtime_ns)
    if "extends" not in own or path == shipped_path(name):
        return own
    if own["extends"] != "shipped":
        raise InputError(f"{path}: key 'extends' = {own['extends']!r}: must be 'shipped'")
    base = shipped_path(name)
    return _joined(_read(base, base.stat().st_mtime_ns),
                   {k: v for k, v in own.items() if k != "extends"})  # fmt: skip


def _joined(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in own.items():
        old = found.get(key)
        if isinstance(old, list) and isinstance(value, list):
            found[key] = [*old, *value]
        elif isinstance(old, dict) and isinstance(value, dict) and "value" not in value:
            found[key] = _joined(old, value)
        else:
            found[key] = value
    return found


@lru_cache(maxsize=32)
def _read(path: Path, _stamp: int) -> dict[str, Any]:
    return read_toml(path)


def number(table: dict[str, Any], key: str, where: str) -> float:
    """Return a figure of a table, a finite number that is not negative.

    Raises:
        InputError: it is missing, not a number, negative or not finite.
    """
    value = table.get(key)
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: key '{key}' = {value!r}: must be a number")
    if not 0 <= float(value) < float("inf"):
        raise InputError(f"{where}: key '{key}' = {value}: must be finite and not negative")
    return float(value)
