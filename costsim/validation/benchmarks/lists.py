"""vLLM's ``bench serve`` and SGLang's ``bench_serving``: flat objects with parallel lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.validation.benchmarks.run import (
    Requests,
    Run,
    Statistic,
    derived_e2e,
    number,
    numbers,
    required,
    statistic_of,
)

# Keys by tool: what the latencies are called. Milliseconds in names, seconds in lists.
NAMES = {"vllm": {"ttft": "ttft", "tpot": "tpot", "e2e": "e2el"},
         "sglang": {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e_latency"}}
# Strings at the top level that are the tool's own; others are what the user added.
_OWN = ("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "dataset_name",
        "request_rate", "burstiness", "ramp_up_strategy")


def is_vllm(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a result of ``vllm bench serve``."""
    return "request_throughput" in row and "completed" in row and not is_sglang(row)


def is_sglang(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a result of SGLang's ``bench_serving``."""
    return "total_output_tokens_retokenized" in row or "mean_e2e_latency_ms" in row


def read_flat(row: Mapping[str, Any], where: str) -> Run:
    """Return the run of one object.

    Raises:
        InputError: nothing completed, or a figure is missing or no number.
    """
    tool = "sglang" if is_sglang(row) else "vllm"
    completed = number(row.get("completed"), where, "completed")
    if completed is not None and completed <= 0:
        raise InputError(f"{where}: no request completed; there is nothing to compare")
    completed = required(completed, where, "completed")
    given = number(row.get("max_concurrency"), where, "max_concurrency")
    rate = number(row.get("request_rate"), where, "request_rate")
    detail = _detail(row)
    latencies = {name: _statistic(row, key, where) for name, key in NAMES[tool].items()}
    if latencies["e2e"].central is None and detail is not None:
        latencies["e2e"] = statistic_of(detail.e2e_s)
    run = Run(
        source=where, tool=tool, concurrency=given or None,
        request_rate=np.inf if rate is None else rate, requests=int(completed),
        failed=int(number(row.get("failed"), where, "failed") or 0),
        duration_s=required(number(row.get("duration"), where, "duration"), where, "duration"),
        isl=_tokens(row, "total_input_tokens", where) / completed,
        osl=_tokens(row, "total_output_tokens", where) / completed,
        ttft_s=latencies["ttft"], tpot_s=latencies["tpot"], e2e_s=latencies["e2e"],
        requests_per_s=_rate(row, "request_throughput", where),
        output_tokens_per_s=_rate(row, "output_throughput", where),
        model=str(row.get("model_id") or ""), detail=detail,
        metadata={k: v for k, v in row.items() if isinstance(v, str) and k not in _OWN})
    return derived_e2e(run)


def _tokens(row: Mapping[str, Any], key: str, where: str) -> float:
    return required(number(row.get(key), where, key), where, key)


_rate = _tokens


def _statistic(row: Mapping[str, Any], name: str, where: str) -> Statistic:
    def seconds(prefix: str) -> float | None:
        value = number(row.get(f"{prefix}_{name}_ms"), where, f"{prefix}_{name}_ms")
        # Without streaming, or with one token each, tools write zero: nothing was measured.
        return value / 1e3 if value else None

    return Statistic(seconds("mean"), seconds("median"), seconds("p90"), seconds("p95"),
                     seconds("p99"))


def _detail(row: Mapping[str, Any]) -> Requests | None:
    """Return the completed requests of ``--save-detailed`` or ``--output-details``."""
    ttfts, outputs = row.get("ttfts"), row.get("output_lens")
    if not isinstance(ttfts, list) or not isinstance(outputs, list) or not ttfts:
        return None
    count = len(ttfts)
    gaps = row.get("itls") or []
    first = numbers(ttfts, count)
    after = np.array([float(np.sum(gaps[i])) if i < len(gaps) and isinstance(gaps[i], list)
                      else np.nan for i in range(count)])
    whole = numbers(row.get("latencies"), count)
    e2e = np.where(whole > 0, whole, first + after)
    found = Requests(numbers(row.get("input_lens"), count), numbers(outputs, count), first, e2e,
                     numbers(row.get("start_times"), count))
    errors = row.get("errors") or []
    failed = np.array([i < len(errors) and bool(errors[i]) for i in range(count)])
    return found.select(~failed & (found.output_tokens > 0) & (first > 0))
