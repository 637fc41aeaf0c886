"""Traces of real services, read into columns: arrival (s, from zero), input and output tokens.

Azure LLM inference 2023 and 2024 (``TIMESTAMP,ContextTokens,GeneratedTokens``), BurstGPT
(``Timestamp,Model,Request tokens,Response tokens,…``), Mooncake JSONL (``timestamp`` ms,
``input_length``, ``output_length``, ``hash_ids``), ShareGPT JSON (lengths only) and plain CSV
(``arrival_s,input_tokens,output_tokens``).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError, suggestion

MAX_TOKENS = 2**31
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?"
)
CHARACTERS_PER_TOKEN = 4.0
"""Used for ShareGPT text, whose tokenizer is not at hand; a common figure for English."""


@dataclass(frozen=True)
class Trace:
    """Requests of a trace.

    Args:
        arrival: seconds from the first, never falling.
        prompt, output: tokens.
        block_hashes: per request, where the trace has them.
        hash_tokens: tokens of one hash block.
        session: number of the session, -1 for none.
        dropped: rows left out because they had no output (failed requests of BurstGPT).
    """

    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    block_hashes: list[Any] | None = None
    hash_tokens: int = 512
    session: np.ndarray | None = None
    dropped: int = 0
    names: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrival)


COLUMNS = {
    "azure": (("TIMESTAMP",), ("ContextTokens",), ("GeneratedTokens",)),
    "burstgpt": (("Timestamp",), ("Request tokens",), ("Response tokens",)),
    "csv": (
        ("arrival_s", "arrival_time", "arrived_at", "arrival_timestamp"),
        ("input_tokens", "input_toks", "num_prefill_tokens", "prompt_size"),
        ("output_tokens", "output_toks", "num_decode_tokens", "token_size"),
    ),
}


def read_trace(path: Path | str, format: str = "auto", sort: bool = False) -> Trace:
    """Return the requests of a trace file.

    Args:
        path: the file; CSV is read row by row, so that ten million rows need only their columns.
        format: ``azure``, ``burstgpt``, ``csv``, ``mooncake``, ``sharegpt`` or ``auto``.
        sort: sort rows whose time goes back, instead of refusing them.

    Raises:
        InputError: naming file, line and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if format == "mooncake" or (format == "auto" and path.suffix == ".jsonl"):
            trace = _mooncake(path)
        elif format == "sharegpt" or (format == "auto" and path.suffix == ".json"):
            return _sharegpt(path)
        else:
            trace = _table(path, format)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    if not len(trace):
        raise InputError(f"{path}: the trace has no requests")
    return _in_order(path, trace, sort)


def _in_order(path: Path, trace: Trace, sort: bool) -> Trace:
    back = np.flatnonzero(np.diff(trace.arrival) < 0)
    if len(back) and not sort:
        raise InputError(
            f"{path}: time goes back at request {int(back[0]) + 2}; sort the trace (sort = true)"
        )
    if not len(back):
        return replace(trace, arrival=trace.arrival - trace.arrival[0])
    order = np.argsort(trace.arrival, kind="stable")
    hashes = trace.block_hashes
    return replace(
        trace,
        arrival=trace.arrival[order] - trace.arrival[order[0]],
        prompt=trace.prompt[order],
        output=trace.output[order],
        block_hashes=None if hashes is None else [hashes[i] for i in order],
        session=None if trace.session is None else trace.session[order],
    )


def _columns(path: Path, header: list[str], format: str) -> tuple[str, list[int]]:
    kinds = [format] if format in COLUMNS else list(COLUMNS)
    for kind in kinds:
        at = [
            next((header.index(name) for name in names if name in header), -1)
            for names in COLUMNS[kind]
        ]
        if min(at) >= 0:
            return kind, at
    wanted = COLUMNS[format if format in COLUMNS else "csv"]
    missing = [names[0] for names in wanted if not set(names) & set(header)]
    hint = suggestion(missing[0], header)
    raise InputError(f"{path}: column '{missing[0]}' is missing{hint}")


def _table(path: Path, format: str) -> Trace:
    arrival, prompt, output, dropped = [], [], [], 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        if not header:
            raise InputError(f"{path}: the file is empty")
        kind, (a, p, o) = _columns(path, header, format)
        session_at = header.index("session_id") if "session_id" in header else -1
        sessions: list[str] = []
        clock = _seconds_reader()
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) <= max(a, p, o):
                raise InputError(f"{where}: {len(row)} fields, {len(header)} expected")
            tokens = _tokens(row[p], where, header[p]), _tokens(row[o], where, header[o])
            if kind == "burstgpt" and tokens[1] == 0:
                dropped += 1
                continue
            arrival.append(clock(row[a], where))
            prompt.append(tokens[0])
            output.append(max(1, tokens[1]))
            if session_at >= 0:
                sessions.append(row[session_at])
    numbers = np.unique(sessions, return_inverse=True)[1] if sessions else None
    return Trace(
        np.array(arrival), np.array(prompt, np.int64), np.array(output, np.int64),
        session=numbers, dropped=dropped,
    )  # fmt: skip


def _tokens(text: str, where: str, name: str) -> int:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {name} = '{text}' is not a number") from None
    if not 0 <= value < MAX_TOKENS:
        raise InputError(f"{where}: {name} = {text}: must be a count of tokens, not negative")
    return int(value)


def _seconds_reader() -> Any:
    """Return a reader of times that are seconds, or dates with up to nine decimals.

    Dates count from the first one read: a double holds a date since 1970 to 0.2 us only.
    """
    whole_of: dict[str, int] = {}
    origin: list[int] = []

    def read(text: str, where: str) -> float:
        try:
            value = float(text)
        except ValueError:
            pass
        else:
            if not np.isfinite(value) or value < 0:
                raise InputError(f"{where}: time = {text}: must be finite and not negative")
            return value
        found = _DATE.fullmatch(text.strip())
        if not found:
            raise InputError(f"{where}: time '{text}' is neither seconds nor a date")
        day, decimals, zone = found.groups()
        key = day + (zone or "+00:00").replace("Z", "+00:00")
        if key not in whole_of:
            whole_of.clear()
            try:
                whole_of[key] = int(datetime.fromisoformat(key).timestamp())
            except ValueError:
                raise InputError(f"{where}: time '{text}' is neither seconds nor a date") from None
        if not origin:
            origin.append(whole_of[key])
        return whole_of[key] - origin[0] + float(f"0.{decimals or 0}")

    return read


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
            if not isinstance(row, dict):
                raise InputError(f"{where}: an object is expected")
            yield where, row


def _mooncake(path: Path) -> Trace:
    arrival, prompt, output, hashes = [], [], [], []
    clock = _seconds_reader()
    for where, row in _json_lines(path):
        for name in ("timestamp", "input_length", "output_length"):
            if name not in row:
                raise InputError(f"{where}: key '{name}' is missing{suggestion(name, row)}")
        arrival.append(clock(str(row["timestamp"]), where) / 1e3)
        prompt.append(_tokens(str(row["input_length"]), where, "input_length"))
        output.append(max(1, _tokens(str(row["output_length"]), where, "output_length")))
        hashes.append(tuple(row.get("hash_ids", ())))
    return Trace(
        np.array(arrival), np.array(prompt, np.int64), np.array(output, np.int64), hashes
    )


def _sharegpt(path: Path) -> Trace:
    from costsim.loading import read_json

    pairs = []
    for entry in read_json(path):
        turns = entry.get("conversations", []) if isinstance(entry, dict) else []
        if len(turns) >= 2:
            pairs.append([len(str(turn.get("value", ""))) for turn in turns[:2]])
    if not pairs:
        raise InputError(f"{path}: no conversation with two turns")
    tokens = np.maximum(1, np.ceil(np.array(pairs) / CHARACTERS_PER_TOKEN)).astype(np.int64)
    return Trace(np.zeros(len(tokens)), tokens[:, 0], tokens[:, 1])
