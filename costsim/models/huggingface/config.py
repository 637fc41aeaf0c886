"""A ``config.json`` that remembers which of its keys were read, so that none is lost silently."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from costsim.errors import InputError, suggestion

_NEUTRAL = Path(__file__).with_name("neutral_keys.json")
_LARGEST = 10**12


@cache
def neutral_keys() -> frozenset[str]:
    """Return the keys that cannot change a cost (`neutral_keys.json`, grouped by reason)."""
    groups = json.loads(_NEUTRAL.read_text(encoding="utf-8"))
    return frozenset(key for keys in groups.values() for key in keys)


class Config:
    """One table of a ``config.json``; every getter marks its key as read.

    Args:
        table: the table; keys whose value is null count as absent.
        where: the file, named in errors.
        prefix: dotted path of the table inside the file.
    """

    def __init__(self, table: Any, where: str, prefix: str = "") -> None:
        if not isinstance(table, dict):
            inside = f" key '{prefix.rstrip('.')}':" if prefix else ""
            raise InputError(f"{where}:{inside} must be a table, got {type(table).__name__}")
        self.table: dict[str, Any] = table
        self.where = where
        self.prefix = prefix
        self.ignored: list[str] = []
        self._read: set[str] = set()
        self._sections: dict[str, Config] = {}

    def fill(self, defaults: dict[str, Any]) -> None:
        """Set keys that are absent; the table given by the caller is not changed."""
        self.table = {**defaults, **{k: v for k, v in self.table.items() if v is not None}}

    def error(self, message: str) -> InputError:
        """Return an error that names the file."""
        return InputError(f"{self.where}: {message}")

    def has(self, key: str) -> bool:
        """Say whether a key is there with a value; does not mark it as read."""
        return self.table.get(key) is not None

    def value(self, *keys: str) -> Any:
        """Return the value of the first of some keys that has one, or None."""
        self._read.update(keys)
        for key in keys:
            if self.table.get(key) is not None:
                return self.table[key]
        return None

    def _missing(self, keys: tuple[str, ...]) -> InputError:
        hint = suggestion(keys[0], [key for key in self.table if key not in self._read])
        return self.error(f"key '{self.prefix}{keys[0]}' is missing{hint}")

    def count(self, *keys: str, default: int | None = None, minimum: int = 1) -> int:
        """Return a whole number of at least ``minimum``.

        Args:
            keys: names of the key, the first present one wins.
            default: where none is present; None makes it an error.
            minimum: the least allowed.
        """
        value = self.value(*keys)
        if value is None:
            if default is None:
                raise self._missing(keys)
            return default
        key = next(k for k in keys if self.has(k))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"key '{self.prefix}{key}' = {value!r}: must be a whole number")
        if not math.isfinite(value) or value != int(value) or not minimum <= value <= _LARGEST:
            raise self.error(
                f"key '{self.prefix}{key}' = {value!r}: must be a whole number >= {minimum}"
            )
        return int(value)

    def flag(self, *keys: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.value(*keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            key = next(k for k in keys if self.has(k))
            raise self.error(f"key '{self.prefix}{key}' = {value!r}: must be true or false")
        return value

    def text(self, *keys: str, default: str = "") -> str:
        """Return a string."""
        value = self.value(*keys)
        return default if value is None else str(value)

    def items(self, *keys: str) -> list[Any]:
        """Return a list; empty where there is none."""
        value = self.value(*keys)
        if value is None:
            return []
        if not isinstance(value, list):
            key = next(k for k in keys if self.has(k))
            raise self.error(f"key '{self.prefix}{key}' = {value!r}: must be a list")
        return value

    def per_layer(self, key: str, layers: int) -> list[Any]:
        """Return a list with one entry per layer; empty where there is none.

        Raises:
            InputError: the list is shorter than the number of layers.
        """
        values = self.items(key)
        if values and len(values) < layers:
            raise self.error(
                f"key '{self.prefix}{key}' has {len(values)} entries for {layers} layers"
            )
        return values[:layers]

    def section(self, key: str) -> Config | None:
        """Return a table inside this one, or None; what is left unread in it is noted."""
        value = self.value(key)
        if value is None:
            return None
        if key not in self._sections:
            self._sections[key] = Config(value, self.where, f"{self.prefix}{key}.")
        return self._sections[key]

    def ignore(self, message: str) -> None:
        """Note what the description leaves out."""
        self.ignored.append(message)

    def left_out(self) -> tuple[str, ...]:
        """Return one line for each thing of the file that the description leaves out."""
        lines = list(self.ignored)
        for key in sorted(set(self.table) - self._read - neutral_keys()):
            value = self.table[key]
            if value in (None, False, [], {}, ""):
                continue
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "…"
            lines.append(f"{self.prefix}{key} = {shown}: not modelled")
        for inner in self._sections.values():
            lines.extend(inner.left_out())
        return tuple(lines)
