"""TOML and JSON in, validated values out; every mistake is one line that names file and key."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from costsim.errors import InputError, suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel

    Validated = TypeVar("Validated", bound=BaseModel)

MAX_FILE_BYTES = 64 * 2**20


def read_text(path: Path | str) -> str:
    """Return the text of a file (UTF-8, a byte order mark is dropped).

    Raises:
        InputError: the file is missing, unreadable, too large or not UTF-8.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return the table of a TOML file; raises InputError where it is malformed."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: malformed TOML: {error}") from None


def read_json(path: Path | str) -> Any:
    """Return the value of a JSON file; raises InputError where it is malformed."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{path}: malformed JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise InputError(f"{path}: malformed JSON: nested too deeply") from None


def validate(schema: type[Validated], data: Any, where: str) -> Validated:
    """Return ``data`` as the pydantic model ``schema``.

    Args:
        schema: a pydantic model (with ``extra="forbid"`` where unknown keys are errors).
        data: the raw table.
        where: file or option that the data came from, named in the message.

    Raises:
        InputError: one line with the file, the key, the value and what is allowed.
    """
    from pydantic import ValidationError

    try:
        return schema.model_validate(data)
    except ValidationError as error:
        # keys of the user's may hold line breaks; the message is one line all the same
        raise InputError(f"{where}: {' '.join(_first_mistake(schema, error).split())}") from None


def _first_mistake(schema: type[BaseModel], error: Any) -> str:
    mistakes = error.errors(include_url=False)
    # A misspelt key is both unknown and missing; the unknown one can be corrected.
    mistake = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    key = ".".join(str(part) for part in mistake["loc"]) or "(top level)"
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    if mistake["type"] == "extra_forbidden":
        last = str(mistake["loc"][-1])
        return f"unknown key '{key}'{suggestion(last, _all_keys(schema))}{tail}"
    if mistake["type"] == "missing":
        return f"key '{key}' is missing{tail}"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    shown = repr(mistake.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return f"key '{key}' = {shown}: {message}{tail}"


def _all_keys(schema: type[BaseModel]) -> set[str]:
    """Return every key of a schema and of the schemas inside it."""
    import typing

    from pydantic import BaseModel

    keys: set[str] = set()
    waiting: list[Any] = [schema]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind in seen:
                continue
            seen.add(kind)
            for name, field in kind.model_fields.items():
                keys.add(field.alias or name)
                waiting.append(field.annotation)
        else:
            waiting.extend(typing.get_args(kind))
    return keys
