"""What vLLM's and SGLang's benchmarks print: blocks of text in logs and documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_BLOCK = re.compile(r"^[ \t>#|]*=+ Serving Benchmark Result =+[ \t]*$(.*?)^[ \t>#|]*={20,}[ \t]*$",
                    re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^[ \t>#|]*([A-Z][^:\n]*?):[ \t]+(\S+)[ \t]*$", re.MULTILINE)
_KEYS = {
    "Backend": "backend", "Successful requests": "completed", "Failed requests": "failed",
    "Benchmark duration (s)": "duration", "Total input tokens": "total_input_tokens",
    "Total generated tokens": "total_output_tokens",
    "Total generated tokens (retokenized)": "total_output_tokens_retokenized",
    "Request throughput (req/s)": "request_throughput",
    "Output token throughput (tok/s)": "output_throughput",
    "Traffic request rate": "request_rate", "Request rate configured (RPS)": "request_rate",
    "Burstiness factor": "burstiness", "Max request concurrency": "max_concurrency",
    "Maximum request concurrency": "max_concurrency", "Accept length": "accept_length",
    "Cache hit rate": "cache_hit_rate",
}
_LATENCY = re.compile(r"(Mean|Median|P\d+) (TTFT|TPOT|E2EL|E2E Latency) \(ms\)")
# Flags of the command that stand before a block, also as Python prints a Namespace.
_FLAGS = ("max_concurrency", "request_rate", "burstiness", "num_prompts", "dataset_name",
          "random_range_ratio", "model")
_UNSET = ("none", "not", "null", "n/a", "-")


def has_blocks(text: str) -> bool:
    """Return whether a text holds a printed result."""
    return _BLOCK.search(text) is not None


def printed_rows(text: str) -> Iterator[dict[str, Any]]:
    """Yield the printed results of a text as the objects that the tools would have saved.

    What a block does not say (older tools print the load before it, or not at all) is taken from
    the lines and the command between it and the block before.
    """
    last = 0
    for block in _BLOCK.finditer(text):
        row = _row(text[last:block.start()], block.group(1))
        last = block.end()
        # Documents also show blocks with xxx in place of figures.
        if row.get("completed", "").isdigit():
            yield row


def _row(before: str, block: str) -> dict[str, str]:
    flags = _flags(before)
    lines = dict(_lines(before)) | dict(_lines(block))
    row = {**flags, **lines}
    if "model" in row:
        row["model_id"] = row.pop("model")
    if "total_output_tokens_retokenized" in row and "bench_serving" in before:
        # Defaults of SGLang's command.
        row.setdefault("dataset_name", "sharegpt")
    if str(row.get("dataset_name", "")).startswith("random"):
        row.setdefault("random_range_ratio", "0.0")
    return row


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for label, value in _LINE.findall(text):
        latency = _LATENCY.fullmatch(label)
        if latency is not None:
            statistic, name = latency.groups()
            yield f"{statistic.lower()}_{name.lower().replace(' ', '_')}_ms", value
        elif label in _KEYS and value.lower() not in _UNSET:
            yield _KEYS[label], value.rstrip("%")


def _flags(text: str) -> dict[str, str]:
    found = {}
    for name in _FLAGS:
        flag = name.replace("_", "[-_]")
        values = re.findall(rf"(?:--{flag}[ =]|\b{name}=)['\"]?([^\s'\",)\\]+)", text)
        if values and values[-1].lower() not in _UNSET and not values[-1].startswith("$"):
            found[name] = values[-1]
    return found
