"""GuideLLM: a report with one benchmark for each load of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.validation.benchmarks.run import (
    QUANTILES,
    NothingCompleted,
    Requests,
    Run,
    Statistic,
    derived_e2e,
    number,
    required,
)

# Metric and its unit in seconds. inter_token_latency_ms is (last − first token) / (n − 1): TPOT.
# time_per_output_token_ms is not: it divides the whole latency, TTFT included, by n.
NAMES = {"ttft_s": ("time_to_first_token_ms", 1e-3), "tpot_s": ("inter_token_latency_ms", 1e-3),
         "e2e_s": ("request_latency", 1.0)}
# Where the strategy stands, by version of the report.
_STRATEGIES = (("config", "strategy"), ("args", "strategy"), ("scheduler", "strategy"))


def is_report(row: Mapping[str, Any]) -> bool:
    """Return whether an object is a report."""
    return isinstance(row.get("benchmarks"), list)


def read_report(row: Mapping[str, Any], where: str) -> list[Run]:
    """Return the runs of a report.

    Raises:
        InputError: it holds no benchmark with completed requests.
    """
    found = []
    for index, each in enumerate(row["benchmarks"]):
        name = f"{where}#{index + 1}" if len(row["benchmarks"]) > 1 else where
        if isinstance(each, dict) and (_mean(each, "request_totals", name) or 0) > 0:
            found.append(_run(each, name))
    if not found:
        raise NothingCompleted(f"{where}: no benchmark with completed requests; nothing to compare")
    return found


def _run(row: Mapping[str, Any], where: str) -> Run:
    done = required(_mean(row, "request_totals", where), where, "request_totals")
    strategy = _strategy(row)
    kind = str(strategy.get("type_", strategy.get("type", "")))
    limit = strategy.get("streams") or strategy.get("max_concurrency")
    concurrency = 1.0 if kind == "synchronous" else number(limit, where, "streams")
    rate = number(strategy.get("rate"), where, "rate")
    duration = number(row.get("duration"), where, "duration")
    per_s = _mean(row, "requests_per_second", where) or (done / duration if duration else None)
    per_s = required(per_s, where, "requests_per_second")
    osl = required(_mean(row, "output_token_count", where), where, "output_token_count")
    each = {name: _statistic(row, key, scale, where) for name, (key, scale) in NAMES.items()}
    failed = (row["metrics"].get("request_totals") or {}).get("errored", 0)
    run = Run(
        source=where, tool="guidellm", concurrency=None if rate else concurrency,
        request_rate=rate or np.inf, requests=int(done),
        failed=int(number(failed, where, "request_totals.errored") or 0),
        duration_s=duration or done / per_s,
        isl=required(_mean(row, "prompt_token_count", where), where, "prompt_token_count"),
        osl=osl, requests_per_s=per_s,
        output_tokens_per_s=_mean(row, "output_tokens_per_second", where) or per_s * osl,
        model=_model(row), isl_cv=_cv(row, "prompt_token_count"),
        osl_cv=_cv(row, "output_token_count"), arrival_cv=1.0 if "poisson" in kind else 0.0,
        detail=_detail(row), ttft_s=each["ttft_s"], tpot_s=each["tpot_s"], e2e_s=each["e2e_s"])
    return derived_e2e(_with_tpot(run, row, where))


def _model(row: Mapping[str, Any]) -> str:
    backend = (row.get("config") or {}).get("backend")
    return str(backend.get("model") or "") if isinstance(backend, dict) else ""


def _cv(row: Mapping[str, Any], name: str) -> float:
    """Return the coefficient of variation of a count over successful requests; 0 if not given."""
    found = _successful(row, name)
    mean, std = (found.get("mean"), found.get("std_dev")) if isinstance(found, dict) else (0, 0)
    return float(std / mean) if mean and std else 0.0


def _with_tpot(run: Run, row: Mapping[str, Any], where: str) -> Run:
    """Return the run with TPOT from the latency per token where nothing else is given."""
    inclusive = _statistic(row, "time_per_output_token_ms", 1e-3, where).central
    first = run.ttft_s.central
    if run.tpot_s.central is not None or not inclusive or first is None or run.osl <= 1:
        return run
    note = "TPOT derived from time_per_output_token_ms, which includes TTFT"
    return replace(run, tpot_s=Statistic((inclusive * run.osl - first) / (run.osl - 1.0)),
                   notes=(*run.notes, note))


def _strategy(row: Mapping[str, Any]) -> Mapping[str, Any]:
    for path in _STRATEGIES:
        found: Any = row
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return {}


def _successful(row: Mapping[str, Any], name: str) -> Any:
    metric = (row.get("metrics") or {}).get(name)
    return metric.get("successful") if isinstance(metric, dict) else None


def _mean(row: Mapping[str, Any], name: str, where: str) -> float | None:
    found = _successful(row, name)
    return number(found.get("mean") if isinstance(found, dict) else found, where, name)


def _statistic(row: Mapping[str, Any], name: str, scale: float, where: str) -> Statistic:
    found = _successful(row, name)
    if not isinstance(found, dict):
        return Statistic()
    percentiles = {**(found.get("percentiles") or {}), "p50": found.get("median")}
    values = {"mean": found.get("mean"), **{k: percentiles.get(k) for k in QUANTILES}}
    known = {k: number(v, where, f"{name}.{k}") for k, v in values.items()}
    # Zero stands for "not measured" (no streaming, one token each).
    return Statistic(**{k: v * scale if v else None for k, v in known.items()})


def _detail(row: Mapping[str, Any]) -> Requests | None:
    listed = (row.get("requests") or {}).get("successful")
    if not isinstance(listed, list) or not listed:
        return None

    def column(name: str, scale: float = 1.0) -> Any:
        return np.array([np.nan if each.get(name) is None else each[name] * scale
                         for each in listed], float)

    first = column("time_to_first_token_ms", 1e-3)
    return Requests(column("prompt_tokens"), column("output_tokens"), first,
                    column("request_latency"), column("request_start_time"))
