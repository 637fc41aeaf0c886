"""From files to runs: which tool wrote a file is seen from its keys."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.loading import read_text
from costsim.validation.benchmarks import aiperf, guidellm
from costsim.validation.benchmarks.lists import is_sglang, is_vllm, read_flat
from costsim.validation.benchmarks.printed import has_blocks, printed_rows
from costsim.validation.benchmarks.run import NothingCompleted, Run

KNOWN = "vllm bench serve, sglang.bench_serving, AIPerf or GenAI-Perf, guidellm"
_CSV = "request_throughput"


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs of result files, in the order of their load.

    Runs in which nothing completed are left out where others are there.

    Raises:
        InputError: a file is missing, malformed, or of no tool that is known.
    """
    runs = [run for path in paths for run in read_file(path)]
    return sorted(runs, key=lambda run: (run.concurrency or 0.0, run.requests_per_s))


def read_file(path: Path) -> list[Run]:
    """Return the runs of one file."""
    rows = objects(path)
    name = path.name
    if all(aiperf.is_record(row) for row in rows):
        return [aiperf.read_records(rows, name)]
    found: list[Run] = []
    empty: InputError | None = None
    for index, row in enumerate(rows):
        where = f"{name}#{index + 1}" if len(rows) > 1 else name
        try:
            found += _runs(row, where, path)
        except NothingCompleted as error:
            empty = error
    if empty is not None and not found:
        raise empty
    return found


def _runs(row: dict[str, Any], where: str, path: Path) -> list[Run]:
    reader = _reader(row, path)
    if reader is None:
        keys = ", ".join(list(row)[:6]) or "none"
        raise InputError(f"{where}: no result of {KNOWN} (its keys: {keys})")
    return reader(row, where)


def _reader(row: dict[str, Any], path: Path) -> Callable[[dict[str, Any], str], list[Run]] | None:
    if guidellm.is_report(row):
        return guidellm.read_report
    if aiperf.is_summary(row):
        return lambda row, where: [aiperf.read_summary(row, where, _records_beside(path))]
    if is_sglang(row) or is_vllm(row):
        return lambda row, where: [read_flat(row, where)]
    return None


def _records_beside(path: Path) -> list[dict[str, Any]]:
    """Return AIPerf's records of single requests, which lie beside its summary."""
    beside = path.with_name("profile_export.jsonl")
    return [r for r in objects(beside) if aiperf.is_record(r)] if beside.is_file() else []


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file, as objects.

    They may be JSON (one object, a list, one a line, or one after another; Infinity and NaN may
    stand bare, as Python writes them), JSON objects between the lines of a log, the blocks that
    the tools print, or a table (CSV) with a row for each run.

    Raises:
        InputError: the file is malformed or holds nothing of the kind.
    """
    text = read_text(path)
    try:
        found = list(_json(text))
    except (json.JSONDecodeError, RecursionError) as error:
        found = _in_text(text, path)
        if not found:
            line = text.count("\n", 0, getattr(error, "pos", 0)) + 1
            raise InputError(f"{path}: malformed JSON (line {line}), and no printed result of "
                             f"{KNOWN}") from None
    if not found or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path}: no JSON object; a result of {KNOWN} is needed")
    return found


def _json(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,\x00":
            at += 1
        if at == len(text):
            return
        value, at = decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]


def _in_text(text: str, path: Path) -> list[dict[str, Any]]:
    """Return the results between other lines: saved objects first, else printed blocks."""
    first = text.lstrip("\ufeff").split("\n", 1)[0]
    if _CSV in first.split(",") or _CSV in first.replace('"', "").split(","):
        return [{k: _plain(v) for k, v in row.items() if k and v not in (None, "")}
                for row in csv.DictReader(text.lstrip("\ufeff").splitlines())]
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if line.lstrip().startswith("{"):
            try:
                rows = list(_json(line.strip()))
            except (json.JSONDecodeError, RecursionError):
                continue
            found += [r for r in rows if isinstance(r, dict) and _reader(r, path) is not None]
    return found or (list(printed_rows(text)) if has_blocks(text) else [])


def _plain(text: Any) -> Any:
    """Return a cell's list as a list; other cells stay text, which readers take as numbers."""
    if isinstance(text, str) and text.startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text
