"""AIPerf and GenAI-Perf: metrics with units, and one record a request beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.validation.benchmarks.run import (
    QUANTILES,
    NothingCompleted,
    Requests,
    Run,
    Statistic,
    derived_e2e,
    number,
    required,
    statistic_of,
)

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
# inter_token_latency is (E2E − TTFT) / (n − 1) in both tools: TPOT.
NAMES = {"ttft_s": "time_to_first_token", "tpot_s": "inter_token_latency",
         "e2e_s": "request_latency"}
# Where the concurrency stands, by version: AIPerf's flags, its phases, GenAI-Perf's stimulus.
_LOADS = (("loadgen",), ("perf_analyzer", "stimulus"))


def is_summary(row: Mapping[str, Any]) -> bool:
    """Return whether an object is ``profile_export_aiperf.json`` or GenAI-Perf's counterpart."""
    return isinstance(row.get("request_throughput"), dict) and "request_latency" in row


def is_record(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a line of ``profile_export.jsonl``."""
    return isinstance(row.get("metadata"), dict) and "request_start_ns" in row["metadata"]


def read_summary(row: Mapping[str, Any], where: str, records: Sequence[Any] = ()) -> Run:
    """Return the run of a summary.

    Args:
        row: the summary.
        where: named in errors.
        records: lines of the file of requests beside it.

    Raises:
        InputError: a metric is missing or has an unknown unit.
    """
    count = required(_value(row, "request_count", where), where, "request_count")
    load = _load(row)
    concurrency = number(load.get("concurrency"), where, "concurrency")
    rate = number(load.get("request_rate", load.get("rate")), where, "request_rate")
    each = {name: _statistic(row.get(key), where, key) for name, key in NAMES.items()}
    per_s = required(_value(row, "request_throughput", where), where, "request_throughput")
    osl = required(_value(row, "output_sequence_length", where), where, "output_sequence_length")
    tokens = _value(row, "output_token_throughput", where) or per_s * osl
    given = _value(row, "benchmark_duration", where, time=True)
    cancelled = ("the run was cancelled",) if row.get("was_cancelled") else ()
    run = Run(
        source=where, tool="aiperf",
        concurrency=None if rate and not concurrency else concurrency,
        request_rate=rate or np.inf, requests=int(count),
        failed=int(_value(row, "error_request_count", where) or 0),
        duration_s=given or count / per_s,
        isl=required(_value(row, "input_sequence_length", where), where, "input_sequence_length"),
        osl=osl, requests_per_s=per_s, output_tokens_per_s=tokens, model=_model(row),
        isl_cv=_cv(row, "input_sequence_length"), osl_cv=_cv(row, "output_sequence_length"),
        arrival_cv=0.0 if "constant" in _mode(load) else 1.0, notes=cancelled,
        detail=_requests(records, where) if records else None,
        ttft_s=each["ttft_s"], tpot_s=each["tpot_s"], e2e_s=each["e2e_s"])
    return derived_e2e(run)


def _model(row: Mapping[str, Any]) -> str:
    """Return the served model's name: where it stands changed with the versions."""
    config = row.get("input_config") or {}
    names = (config.get("endpoint") or {}).get("model_names") or config.get("model_names")
    listed = (config.get("models") or {}).get("items") or [{}]
    return str(names[0] if names else listed[0].get("name") or "")


def _mode(load: Mapping[str, Any]) -> str:
    return f"{load.get('request_rate_mode', '')} {load.get('type', '')}".lower()


def _cv(row: Mapping[str, Any], name: str) -> float:
    """Return the coefficient of variation of a metric; 0 where it is not given."""
    metric = row.get(name)
    mean, std = (metric.get("avg"), metric.get("std")) if isinstance(metric, dict) else (0, 0)
    return float(std / mean) if mean and std else 0.0


def read_records(records: Sequence[Any], where: str) -> Run:
    """Return the run of a file of requests alone.

    Raises:
        InputError: no request completed.
    """
    detail = _requests(records, where)
    if not len(detail):
        raise NothingCompleted(f"{where}: no request completed; there is nothing to compare")
    end = float(np.max(detail.start_s + detail.e2e_s))
    duration = end - float(np.min(detail.start_s))
    tokens = float(np.nansum(detail.output_tokens))
    in_flight = float(np.nansum(detail.e2e_s)) / duration
    return Run(
        source=where, tool="aiperf", concurrency=max(1.0, round(in_flight)), request_rate=np.inf,
        requests=len(detail), failed=sum(bool(r.get("error")) for r in records),
        duration_s=duration, isl=float(np.nanmean(detail.input_tokens)),
        osl=float(np.nanmean(detail.output_tokens)), ttft_s=statistic_of(detail.ttft_s),
        tpot_s=statistic_of(detail.tpot_s), e2e_s=statistic_of(detail.e2e_s),
        requests_per_s=len(detail) / duration, output_tokens_per_s=tokens / duration,
        notes=("no summary in the file: the concurrency is the mean number in flight",),
        detail=detail)


def _load(row: Mapping[str, Any]) -> Mapping[str, Any]:
    config = row.get("input_config") or {}
    for path in _LOADS:
        found: Any = config
        for key in path:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        if found:
            return dict(found)
    phases = [p for p in config.get("phases") or [] if isinstance(p, dict)]
    return next((p for p in phases if p.get("name") == "profiling"), phases[-1] if phases else {})


def _value(row: Mapping[str, Any], name: str, where: str, time: bool = False) -> float | None:
    metric = row.get(name)
    if not isinstance(metric, dict):
        return None
    value = number(metric.get("avg"), where, f"{name}.avg")
    return value if value is None or not time else value * _scale(metric, where, name)


def _scale(metric: Mapping[str, Any], where: str, name: str) -> float:
    unit = str(metric.get("unit", "ms"))
    if unit not in SECONDS:
        raise InputError(f"{where}: {name}: unknown unit '{unit}'; known: {', '.join(SECONDS)}")
    return SECONDS[unit]


def _statistic(metric: Any, where: str, name: str) -> Statistic:
    if not isinstance(metric, dict):
        return Statistic()
    scale = _scale(metric, where, name)
    found = {key: number(metric.get(key), where, f"{name}.{key}") for key in ("avg", *QUANTILES)}
    scaled = {k: v * scale if v is not None else None for k, v in found.items()}
    return Statistic(scaled.pop("avg"), **scaled)


def _requests(records: Sequence[Any], where: str) -> Requests:
    rows = [r for r in records if isinstance(r, dict) and not r.get("error")
            and (r.get("metadata") or {}).get("benchmark_phase", "profiling") == "profiling"]

    def column(name: str, time: bool) -> Any:
        values = []
        for row in rows:
            metric = (row.get("metrics") or {}).get(name) or {}
            value = number(metric.get("value"), where, name)
            scale = _scale(metric, where, name) if time and metric else 1.0
            values.append(np.nan if value is None else value * scale)
        return np.array(values, float)

    started = [(row.get("metadata") or {}).get("request_start_ns") for row in rows]
    known = [np.nan if s is None else s * 1e-9 for s in started]
    return Requests(
        column("input_sequence_length", False), column("output_sequence_length", False),
        column(NAMES["ttft_s"], True), column(NAMES["e2e_s"], True), np.array(known, float))
