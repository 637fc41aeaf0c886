"""Traces of real services, read into columns: arrival (s, from zero), input and output tokens.

Azure LLM inference 2023 and 2024 (``TIMESTAMP,ContextTokens,GeneratedTokens``), BurstGPT
(``Timestamp,Model,Request tokens,Response tokens,…``), Mooncake JSONL (``timestamp`` ms,
``input_length``, ``output_length``, ``hash_ids``), ShareGPT JSON (lengths only) and plain CSV
(``arrival_s,input_tokens,output_tokens``).
"""

from __future__ import annotations

import csv
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np

from costsim.errors import InputError, suggestion
from costsim.serving import traces_json
from costsim.serving.trace_fields import Trace, count_of, seconds_reader

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
        trace = _read(path, format)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except csv.Error as error:
        raise InputError(f"{path}: no CSV that can be read ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if not len(trace):
        raise InputError(f"{path}: the trace has no requests")
    return _in_order(path, trace, sort)


def _read(path: Path, format: str) -> Trace:
    if format == "mooncake" or (format == "auto" and path.suffix == ".jsonl"):
        return traces_json.mooncake(path)
    if format == "sharegpt" or (format == "auto" and path.suffix == ".json"):
        return traces_json.sharegpt(path)
    return _table(path, format)


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
    arrival, prompt, output, dropped = array("d"), array("q"), array("q"), 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        if not header:
            raise InputError(f"{path}: the file is empty")
        kind, (a, p, o) = _columns(path, header, format)
        session_at = header.index("session_id") if "session_id" in header else -1
        session, numbers = array("q"), dict[str, int]()
        clock = seconds_reader()
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) <= max(a, p, o, session_at):
                raise InputError(f"{where}: {len(row)} fields, {len(header)} expected")
            tokens = count_of(row[p], where, header[p]), count_of(row[o], where, header[o])
            if kind == "burstgpt" and tokens[1] == 0:
                dropped += 1
                continue
            arrival.append(clock(row[a], where))
            prompt.append(tokens[0])
            output.append(max(1, tokens[1]))
            if session_at >= 0:
                session.append(numbers.setdefault(row[session_at], len(numbers)))
    return Trace(
        np.array(arrival), np.array(prompt), np.array(output),
        session=np.array(session) if len(session) else None, dropped=dropped,
    )  # fmt: skip
