"""From files to runs: which tool wrote a file is seen from its keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.loading import read_text
from costsim.validation.benchmarks import aiperf, guidellm
from costsim.validation.benchmarks.lists import is_sglang, is_vllm, read_flat
from costsim.validation.benchmarks.run import Run

KNOWN = "vllm bench serve, sglang.bench_serving, AIPerf or GenAI-Perf, guidellm"


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs of result files, in the order of their load.

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
    for index, row in enumerate(rows):
        where = f"{name}#{index + 1}" if len(rows) > 1 else name
        found += _runs(row, where, path)
    return found


def _runs(row: dict[str, Any], where: str, path: Path) -> list[Run]:
    if guidellm.is_report(row):
        return guidellm.read_report(row, where)
    if aiperf.is_summary(row):
        return [aiperf.read_summary(row, where, _records_beside(path))]
    if is_sglang(row) or is_vllm(row):
        return [read_flat(row, where)]
    keys = ", ".join(list(row)[:6]) or "none"
    raise InputError(f"{where}: no result of {KNOWN} (its keys: {keys})")


def _records_beside(path: Path) -> list[dict[str, Any]]:
    """Return AIPerf's records of single requests, which lie beside its summary."""
    beside = path.with_name("profile_export.jsonl")
    return [r for r in objects(beside) if aiperf.is_record(r)] if beside.is_file() else []


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file: one, a list of them, one a line, or one after another.

    Infinity and NaN may stand bare, as Python writes them.

    Raises:
        InputError: the file is malformed or holds no object.
    """
    text, decoder, found, at = read_text(path), json.JSONDecoder(), [], 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,\x00":
            at += 1
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", at)) + 1
            raise InputError(f"{path}: malformed JSON (line {line})") from None
        found += value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path}: no JSON object; a result of {KNOWN} is needed")
    return found
