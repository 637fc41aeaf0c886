"""Traces in JSON: Mooncake's lines and ShareGPT's one long list, read entry by entry."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError, suggestion
from costsim.serving.trace_fields import Trace, count_of, seconds_reader

CHARACTERS_PER_TOKEN = 4.0
"""Used for ShareGPT text, whose tokenizer is not at hand; a common figure for English."""
_PIECE = 1 << 18
_LONGEST_ENTRY = 64 << 20


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{where}: malformed JSON: {error.msg}") from None
            except RecursionError:
                raise InputError(f"{where}: malformed JSON: nested too deeply") from None
            if not isinstance(row, dict):
                raise InputError(f"{where}: an object is expected")
            yield where, row


def mooncake(path: Path) -> Trace:
    """Return the requests of Mooncake's JSON lines."""
    arrival, prompt, output, hashes = array("d"), array("q"), array("q"), []
    clock = seconds_reader()
    for where, row in _json_lines(path):
        for name in ("timestamp", "input_length", "output_length"):
            if name not in row:
                raise InputError(f"{where}: key '{name}' is missing{suggestion(name, row)}")
        arrival.append(clock(str(row["timestamp"]), where) / 1e3)
        prompt.append(count_of(str(row["input_length"]), where, "input_length"))
        output.append(max(1, count_of(str(row["output_length"]), where, "output_length")))
        hashes.append(_hashes(row.get("hash_ids", []), where))
    return Trace(np.array(arrival), np.array(prompt), np.array(output), hashes)


def _hashes(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(entry) is int for entry in value):
        raise InputError(f"{where}: hash_ids must be a list of whole numbers")
    return tuple(value)


def sharegpt(path: Path) -> Trace:
    """Return the lengths of the first two turns of each conversation; all arrive at zero."""
    prompt, output = array("q"), array("q")
    for entry in _entries(path):
        turns = entry.get("conversations", []) if isinstance(entry, dict) else []
        if isinstance(turns, list) and len(turns) >= 2:
            prompt.append(_tokens(turns[0]))
            output.append(_tokens(turns[1]))
    if not len(prompt):
        raise InputError(f"{path}: no conversation with two turns")
    return Trace(np.zeros(len(prompt)), np.array(prompt), np.array(output))


def _tokens(turn: Any) -> int:
    text = str(turn.get("value", "")) if isinstance(turn, dict) else ""
    return max(1, -(-len(text) // int(CHARACTERS_PER_TOKEN)))


def _entries(path: Path) -> Iterator[Any]:
    """Yield the entries of a JSON list one by one, so that its length does not matter."""
    decoder, held, at, begun = json.JSONDecoder(), "", 0, False
    with path.open(encoding="utf-8-sig") as file:
        while True:
            piece = file.read(_PIECE)
            held, at = held[at:] + piece, 0
            while (at := _skip(held, at, begun)) < len(held):
                if not begun:
                    if held[at] != "[":
                        raise InputError(f"{path}: a JSON list of conversations is expected")
                    at, begun = at + 1, True
                    continue
                if held[at] == "]":
                    return
                try:
                    entry, at = decoder.raw_decode(held, at)
                except (json.JSONDecodeError, RecursionError) as error:
                    if not piece or len(held) - at > _LONGEST_ENTRY:
                        what = str(error).split(":")[0]
                        raise InputError(f"{path}: malformed JSON: {what}") from None
                    break
                yield entry
            if not piece:
                raise InputError(f"{path}: malformed JSON: the list does not end")


def _skip(text: str, at: int, commas: bool) -> int:
    """Return where the next entry begins."""
    blank = " \t\r\n," if commas else " \t\r\n"
    while at < len(text) and text[at] in blank:
        at += 1
    return at
