"""Result files of the four benchmark tools, written from one set of single requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Load:
    """Requests of one run: tokens, latencies in seconds and when each was sent."""

    concurrency: int
    input_tokens: Any
    output_tokens: Any
    ttft_s: Any
    tpot_s: Any
    start_s: Any

    @property
    def e2e_s(self) -> Any:
        return self.ttft_s + (self.output_tokens - 1) * self.tpot_s

    @property
    def duration_s(self) -> float:
        return float(np.max(self.start_s + self.e2e_s) - np.min(self.start_s))


def closed_loop(
    concurrency: int, isl: float, osl: float, ttft_s: float, tpot_s: float, count: int = 0,
    spread: float = 0.0, seed: int = 0,
) -> Load:
    """Return the requests of so many users, each sending its next when one is answered."""
    rng = np.random.default_rng(seed)
    count = count or 8 * concurrency
    noise = [np.exp(spread * rng.standard_normal(count)) for _ in range(2)]
    first, each = ttft_s * noise[0], tpot_s * noise[1]
    outputs = np.full(count, float(round(osl)))
    whole = first + (outputs - 1) * each
    start, free = np.zeros(count), np.zeros(concurrency)
    for i in range(count):
        user = int(np.argmin(free))
        start[i] = free[user]
        free[user] += whole[i]
    return Load(concurrency, np.full(count, float(round(isl))), outputs, first, each, start)


def _statistics(name: str, values: Any, scale: float = 1e3) -> dict[str, float]:
    return {f"mean_{name}_ms": scale * float(np.mean(values)),
            f"median_{name}_ms": scale * float(np.median(values)),
            f"std_{name}_ms": scale * float(np.std(values)),
            f"p99_{name}_ms": scale * float(np.quantile(values, 0.99))}


def vllm(load: Load, detailed: bool = False, **more: Any) -> dict[str, Any]:
    """Return an object of ``vllm bench serve``, without e2el as by default."""
    tokens, count = float(load.output_tokens.sum()), len(load.ttft_s)
    row = {
        "date": "20260101-000000", "endpoint_type": "vllm", "backend": "vllm", "label": None,
        "model_id": "meta-llama/Llama-3.1-8B-Instruct", "tokenizer_id": "x", "num_prompts": count,
        "tensor_parallel_size": "1", "request_rate": "inf", "burstiness": 1.0,
        "max_concurrency": load.concurrency, "duration": load.duration_s, "completed": count,
        "failed": 0, "total_input_tokens": int(load.input_tokens.sum()),
        "total_output_tokens": int(tokens), "request_throughput": count / load.duration_s,
        "request_goodput": None, "output_throughput": tokens / load.duration_s,
        "total_token_throughput": (tokens + load.input_tokens.sum()) / load.duration_s,
        **_statistics("ttft", load.ttft_s), **_statistics("tpot", load.tpot_s),
        **_statistics("itl", load.tpot_s)}
    if detailed:
        row |= {
            "input_lens": load.input_tokens.astype(int).tolist(),
            "output_lens": load.output_tokens.astype(int).tolist(), "ttfts": load.ttft_s.tolist(),
            "itls": [[t] * int(n - 1) for t, n in zip(load.tpot_s, load.output_tokens,
                                                      strict=True)],
            "start_times": load.start_s.tolist(), "errors": [""] * count,
            "generated_texts": ["…"] * count}
    return {**row, **more}


def sglang(load: Load, **more: Any) -> dict[str, Any]:
    """Return an object of SGLang's bench_serving; the rate is a bare Infinity."""
    tokens, count = float(load.output_tokens.sum()), len(load.ttft_s)
    return {
        "backend": "sglang", "dataset_name": "random", "request_rate": float("inf"),
        "max_concurrency": load.concurrency, "sharegpt_output_len": None,
        "random_input_len": 1, "random_output_len": 1, "random_range_ratio": 1.0,
        "duration": load.duration_s, "completed": count,
        "total_input_tokens": int(load.input_tokens.sum()), "total_output_tokens": int(tokens),
        "total_output_tokens_retokenized": int(tokens),
        "request_throughput": count / load.duration_s,
        "input_throughput": load.input_tokens.sum() / load.duration_s,
        "output_throughput": tokens / load.duration_s,
        **_statistics("e2e_latency", load.e2e_s), **_statistics("ttft", load.ttft_s),
        **_statistics("tpot", load.tpot_s), **_statistics("itl", load.tpot_s),
        "concurrency": float(load.e2e_s.sum()) / load.duration_s, "accept_length": None, **more}


def _metric(values: Any, unit: str) -> dict[str, Any]:
    found = {"unit": unit, "avg": float(np.mean(values)), "min": float(np.min(values)),
             "max": float(np.max(values)), "std": float(np.std(values))}
    return found | {f"p{p}": float(np.percentile(values, p))
                    for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}


def aiperf(load: Load, unit: str = "ms", **more: Any) -> dict[str, Any]:
    """Return ``profile_export_aiperf.json``, its latencies in a unit."""
    scale, count = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}[unit], len(load.ttft_s)
    rate = count / load.duration_s
    return {
        "schema_version": "1.0", "aiperf_version": "0.5.0",
        "request_throughput": {"unit": "requests/sec", "avg": rate},
        "request_latency": _metric(load.e2e_s * scale, unit),
        "request_count": {"unit": "requests", "avg": float(count)},
        "time_to_first_token": _metric(load.ttft_s * scale, unit),
        "inter_token_latency": _metric(load.tpot_s * scale, unit),
        "output_token_throughput": {"unit": "tokens/sec",
                                    "avg": rate * float(load.output_tokens.mean())},
        "output_sequence_length": _metric(load.output_tokens, "tokens"),
        "input_sequence_length": _metric(load.input_tokens, "tokens"),
        "benchmark_duration": {"unit": "sec", "avg": load.duration_s},
        "error_request_count": None, "was_cancelled": False, "error_summary": [],
        "input_config": {"endpoint": {"model_names": ["llama"]},
                         "loadgen": {"concurrency": load.concurrency, "request_rate": None}},
        "start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:10:00", **more}


def aiperf_records(load: Load, failed: int = 1) -> list[dict[str, Any]]:
    """Return the lines of ``profile_export.jsonl``, with some failed requests among them."""
    rows: list[dict[str, Any]] = []
    for i in range(len(load.ttft_s)):
        rows.append({
            "metadata": {"session_num": i, "x_request_id": str(i), "turn_index": 0,
                         "request_start_ns": int(1.7e18 + load.start_s[i] * 1e9),
                         "request_end_ns": int(1.7e18 + (load.start_s + load.e2e_s)[i] * 1e9),
                         "benchmark_phase": "profiling", "was_cancelled": False},
            "metrics": {
                "input_sequence_length": {"value": load.input_tokens[i], "unit": "tokens"},
                "output_sequence_length": {"value": load.output_tokens[i], "unit": "tokens"},
                "time_to_first_token": {"value": load.ttft_s[i] * 1e3, "unit": "ms"},
                "request_latency": {"value": load.e2e_s[i] * 1e3, "unit": "ms"},
                "inter_token_latency": {"value": load.tpot_s[i] * 1e3, "unit": "ms"}},
            "error": None})
    for i in range(failed):
        rows.append({"metadata": {"session_num": 10**6 + i, "request_start_ns": int(1.7e18),
                                  "benchmark_phase": "profiling", "was_cancelled": True},
                     "metrics": {"error_isl": {"value": 550, "unit": "tokens"}},
                     "error": {"code": 499, "type": "RequestCancellationError", "message": "…"}})
    return rows


def _breakdown(values: Any) -> dict[str, Any]:
    found = {"mean": float(np.mean(values)), "median": float(np.median(values)), "mode": None,
             "std_dev": float(np.std(values)), "count": int(np.size(values)),
             "percentiles": {f"p{p:02d}": float(np.percentile(values, p))
                             for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}}
    return {"successful": found, "incomplete": None, "errored": None, "total": found}


def guidellm(loads: list[Load]) -> dict[str, Any]:
    """Return a report with one benchmark for each load."""
    benchmarks = []
    for load in loads:
        count = len(load.ttft_s)
        inclusive = load.e2e_s / load.output_tokens
        benchmarks.append({
            "type_": "generative_benchmark", "duration": load.duration_s,
            "config": {"strategy": {"type_": "concurrent", "streams": load.concurrency}},
            "metrics": {
                "request_totals": {"successful": count, "incomplete": 0, "errored": 2,
                                   "total": count + 2},
                "requests_per_second": _breakdown([count / load.duration_s]),
                "request_concurrency": _breakdown([float(load.concurrency)]),
                "request_latency": _breakdown(load.e2e_s),
                "prompt_token_count": _breakdown(load.input_tokens),
                "output_token_count": _breakdown(load.output_tokens),
                "time_to_first_token_ms": _breakdown(load.ttft_s * 1e3),
                "time_per_output_token_ms": _breakdown(inclusive * 1e3),
                "inter_token_latency_ms": _breakdown(load.tpot_s * 1e3),
                "output_tokens_per_second": _breakdown(
                    [float(load.output_tokens.sum()) / load.duration_s])},
            "requests": {"successful": [
                {"request_id": str(i), "prompt_tokens": int(load.input_tokens[i]),
                 "output_tokens": int(load.output_tokens[i]),
                 "request_latency": float(load.e2e_s[i]), "request_start_time": load.start_s[i],
                 "time_to_first_token_ms": float(load.ttft_s[i] * 1e3),
                 "inter_token_latency_ms": float(load.tpot_s[i] * 1e3)}
                for i in range(count)], "incomplete": [], "errored": [], "total": None}})
    return {"metadata": {"version": 2, "guidellm_version": "0.6.0"}, "benchmarks": benchmarks}


def write(path: Path, *rows: Any) -> Path:
    """Write objects one after another, as appended results are."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path
