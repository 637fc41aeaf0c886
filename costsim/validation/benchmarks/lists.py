"""vLLM's ``bench serve`` and SGLang's ``bench_serving``: flat objects with parallel lists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.validation.benchmarks.run import (
    NothingCompleted,
    Requests,
    Run,
    Statistic,
    derived_e2e,
    derived_tpot,
    number,
    numbers,
    required,
    statistic_of,
)

# Names of a latency in keys, by tool and version. Milliseconds in keys that end in _ms, else
# seconds (a fork of vLLM's tool writes median_ttft), as in the lists.
NAMES = {"ttft_s": ("ttft",), "tpot_s": ("tpot",), "e2e_s": ("e2el", "e2e_latency", "latency")}
_PREFIXES = ("mean", "median", "p90", "p95", "p99")
# Strings at the top level that are the tool's own; others are what the user added.
_OWN = ("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "dataset_name",
        "request_rate", "burstiness", "ramp_up_strategy")
# What SGLang writes of its server, by the names of metadata.
_SERVER = {"tp_size": "tensor_parallel_size", "dp_size": "data_parallel_size",
           "ep_size": "expert_parallel_size", "quantization": "quantization",
           "kv_cache_dtype": "kv_cache_dtype", "version": "version"}
_LAYOUT = ("tensor_parallel_size", "tp", "tp_size")
# Requests that are all sent within this share of a run are sent at once.
_AT_ONCE = 0.01
# Coefficients of variation of ShareGPT's prompts and answers after the tools' filter: of the first
# 164 prompts and 121 answers of a file of vLLM's tool (LambdaLabsML/vllm-benchmark, results/
# prompt_320/2xH100-80GB-SXM/Mixtral-8x7B-Instruct-v0.1_tp2_len2048.json).
_SHAREGPT = (1.14, 0.97)


def is_vllm(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a result of ``vllm bench serve``."""
    known = "request_throughput" in row or "output_throughput" in row
    return known and "completed" in row and not is_sglang(row)


def is_sglang(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a result of SGLang's ``bench_serving``."""
    return "total_output_tokens_retokenized" in row or "mean_e2e_latency_ms" in row


def read_flat(row: Mapping[str, Any], where: str) -> Run:
    """Return the run of one object.

    Raises:
        InputError: nothing completed, or a figure is missing or no number.
    """
    completed = number(row.get("completed"), where, "completed")
    if completed is not None and completed <= 0:
        raise NothingCompleted(f"{where}: no request completed; there is nothing to compare")
    completed = required(completed, where, "completed")
    duration = _duration(row, completed, where)
    tokens = {key: required(number(row.get(key), where, key), where, key)
              for key in ("total_input_tokens", "total_output_tokens")}
    detail = _detail(row)
    latencies = {name: _statistic(row, keys, where) for name, keys in NAMES.items()}
    if latencies["e2e_s"].central is None and detail is not None:
        latencies["e2e_s"] = statistic_of(detail.e2e_s)
    sent = number(row.get("num_prompts"), where, "num_prompts") or completed
    failed = number(row.get("failed"), where, "failed")
    limit, rate = _load(row, max(sent, completed), duration, where)
    run = Run(
        source=where, tool="sglang" if is_sglang(row) else "vllm", concurrency=limit,
        request_rate=rate, requests=int(completed),
        failed=int(max(sent - completed, 0) if failed is None else failed), duration_s=duration,
        isl=tokens["total_input_tokens"] / completed,
        osl=tokens["total_output_tokens"] / completed, ttft_s=latencies["ttft_s"],
        tpot_s=latencies["tpot_s"], e2e_s=latencies["e2e_s"],
        requests_per_s=_rate(row, "request_throughput", completed / duration, where),
        output_tokens_per_s=_rate(row, "output_throughput",
                                  tokens["total_output_tokens"] / duration, where),
        model=_model(row), engine=str(row.get("backend") or ""), detail=detail,
        metadata=_metadata(row), notes=tuple(_notes(row, where)),
        arrival_cv=_arrival_cv(row, where))
    return derived_e2e(derived_tpot(_with_spread(run, row, where)))


def _duration(row: Mapping[str, Any], completed: float, where: str) -> float:
    """Return the length of the run, from its rate where only that is given."""
    given = number(row.get("duration"), where, "duration")
    rate = number(row.get("request_throughput"), where, "request_throughput")
    return required(completed / rate if given is None and rate else given, where, "duration")


def _rate(row: Mapping[str, Any], key: str, otherwise: float, where: str) -> float:
    given = number(row.get(key), where, key)
    return required(otherwise if given is None else given, where, key)


def _load(
    row: Mapping[str, Any], requests: float, duration: float, where: str
) -> tuple[float | None, float]:
    """Return the limit of requests in flight (None for none that binds) and the offered rate."""
    limit = number(row.get("max_concurrency"), where, "max_concurrency")
    rate = number(row.get("request_rate"), where, "request_rate")
    rate = math.inf if rate is None or rate <= 0 else rate
    if requests / rate < _AT_ONCE * duration:
        rate = math.inf
    return (limit if limit and limit < requests else None), rate


def _arrival_cv(row: Mapping[str, Any], where: str) -> float:
    """Return the coefficient of variation of the gaps: ``burstiness`` is the gamma law's shape."""
    shape = number(row.get("burstiness"), where, "burstiness")
    return 1.0 if not shape or shape <= 0 else 1.0 / math.sqrt(shape)


def _with_spread(run: Run, row: Mapping[str, Any], where: str) -> Run:
    """Return the run with how its lengths vary, where the file does not list them.

    SGLang draws random lengths evenly between ``random_range_ratio`` of the given one and itself,
    vLLM up to that share around it. Answers whose number of tokens is no whole number on average
    ended by themselves: they are taken as spread evenly up to twice their mean.
    """
    name, sglang = str(row.get("dataset_name") or ""), run.tool == "sglang"
    if "sharegpt" in name:
        return replace(run, isl_cv=_SHAREGPT[0], osl_cv=_SHAREGPT[1])
    ratio = number(row.get("random_range_ratio"), where, "random_range_ratio")
    if ratio is not None and name.startswith("random"):
        share = (1.0 - ratio) / (1.0 + ratio) if sglang else ratio
        cv = max(share, 0.0) / math.sqrt(3.0)
        return replace(run, isl_cv=cv, osl_cv=cv)
    if run.detail is None and abs(run.osl - round(run.osl)) > 1e-6:
        note = ("answers end by themselves; their lengths are taken as spread evenly up to twice "
                "their mean")
        return replace(run, osl_cv=1.0 / math.sqrt(3.0), notes=(*run.notes, note))
    return run


def _model(row: Mapping[str, Any]) -> str:
    server = row.get("server_info")
    served = server.get("model_path") if isinstance(server, dict) else None
    return str(row.get("model_id") or served or "")


def _metadata(row: Mapping[str, Any]) -> dict[str, str]:
    found = {k: v for k, v in row.items() if isinstance(v, str) and k not in _OWN}
    found |= {k: str(row[k]) for k in _LAYOUT if isinstance(row.get(k), int)}
    server = row.get("server_info")
    if isinstance(server, dict):
        found |= {ours: str(server[theirs]) for theirs, ours in _SERVER.items()
                  if server.get(theirs) not in (None, "")}
    return found


def _notes(row: Mapping[str, Any], where: str) -> list[str]:
    found, server = [], row.get("server_info")
    accepted = number(row.get("accept_length"), where, "accept_length")
    drafts = server.get("speculative_algorithm") if isinstance(server, dict) else None
    if (accepted and accepted > 1) or drafts:
        found.append("it ran with speculative decoding; say so with --set engine.speculation=…")
    cached = number(row.get("cache_hit_rate"), where, "cache_hit_rate")
    if cached and cached > 0.01:
        found.append(f"{100 * cached:.0f} % of the prompts were cached; say so with "
                     f"--set engine.prefix_hit={cached:.2g}")
    return found


def _statistic(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> Statistic:
    def seconds(prefix: str) -> float | None:
        for name in names:
            for key, scale in ((f"{prefix}_{name}_ms", 1e-3), (f"{prefix}_{name}", 1.0)):
                value = number(row.get(key), where, key)
                # Without streaming, or with one token each, tools write zero: not measured.
                if value:
                    return value * scale
        return None

    return Statistic(*(seconds(prefix) for prefix in _PREFIXES))


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
