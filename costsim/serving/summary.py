"""The figures of a run as plain numbers: of the whole, by SLO class and by pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from costsim.serving.record import Record, ReplicaUse
from costsim.serving.requests import STATUS_NAMES

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
STATISTICS = ("mean", "p50", "p90", "p99")


def summary_of(result: Record) -> dict[str, Any]:
    """Return all figures of a run (s, tokens, requests/s).

    ``intervals`` holds the 90 % confidence intervals of latencies, by batch means; None where there
    are too few requests. Rates are over the time after the warm-up.
    """
    table, counts = result.table, result.counts()
    figures: dict[str, Any] = {name: result.statistics(name) for name in LATENCIES}
    return figures | {
        "intervals": intervals_of(result),
        "requests": len(result),
        "finished": counts["finished"],
        "rejected": counts["rejected"],
        "timed_out": counts["timed out"],
        "failed": counts["failed"],
        "unserved": counts["unborn"] + counts["waiting"] + counts["running"],
        "duration_s": result.duration_s,
        **_rates(result, result.counted),
        **_use(result.replicas),
        "preemptions": int(table["preemptions"].sum()),
        "retries": int(table["retries"].sum()),
        "prefix_hit_share": float(table["cached"].sum() / max(1, table["prompt"].sum())),
        "accelerators": result.accelerators,
        "accelerator_s": result.accelerator_s,
        "energy_j": result.energy_j,
        "complete": result.complete,
        "classes": {slo.name: _class(result, at) for at, slo in enumerate(result.classes)},
        "pools": {name: _pool(result, at) for at, name in enumerate(result.pools)},
    }


def intervals_of(result: Record) -> dict[str, dict[str, list[float] | None]]:
    """Return 90 % confidence intervals of the latencies of requests, by batch means."""
    found: dict[str, dict[str, list[float] | None]] = {}
    for name in LATENCIES:
        if name == "itl_s":
            continue
        ends = {statistic: result.interval(name, statistic) for statistic in STATISTICS}
        found[name] = {k: None if math.isnan(low) else [low, high]
                       for k, (low, high) in ends.items()}  # fmt: skip
    return found


def _rates(result: Record, done: np.ndarray) -> dict[str, float]:
    span = max(result.duration_s - result.warmup_s, 1e-300)
    return {
        "requests_per_s": float(done.sum() / span),
        "input_tokens_per_s": float(result.table["prompt"][done].sum() / span),
        "output_tokens_per_s": float(result.table["output"][done].sum() / span),
    }


def _use(replicas: Sequence[ReplicaUse]) -> dict[str, float]:
    busy, up = sum(use.busy_s for use in replicas), sum(use.up_s for use in replicas)
    each = busy or math.nan
    return {
        "utilisation": busy / up if up > 0 else 0.0,
        "mean_batch": sum(use.mean_batch * use.busy_s for use in replicas) / each,
        "kv_occupancy": sum(use.kv_occupancy * use.busy_s for use in replicas) / each,
    }


def _statuses(result: Record, mask: np.ndarray) -> dict[str, int]:
    found = np.bincount(result.table["status"][mask], minlength=len(STATUS_NAMES))
    names = {"finished": "finished", "rejected": "rejected", "timed out": "timed_out",
             "failed": "failed"}  # fmt: skip
    return {key: int(found[STATUS_NAMES.index(name)]) for name, key in names.items()}


def _latencies(result: Record, mask: np.ndarray) -> dict[str, dict[str, float]]:
    return {name: result.statistics(name, mask) for name in ("ttft_s", "tpot_s", "e2e_s")}


def _class(result: Record, number: int) -> dict[str, Any]:
    mask, slo = result.table["tenant"] == number, result.classes[number]
    late = mask & result.after_warmup
    offered = int(late.sum())
    return {
        "requests": int(mask.sum()),
        **_statuses(result, mask),
        "output_tokens": int(result.table["generated"][mask].sum()),
        "goodput_per_s": result.goodput(slo, mask),
        "attainment": float(result.meets(slo)[late].sum() / offered) if offered else 0.0,
        **_latencies(result, mask),
    }


def _pool(result: Record, number: int) -> dict[str, Any]:
    mask = result.table["pool"] == number
    replicas = [use for use in result.replicas if use.pool == result.pools[number]]
    return {
        "requests": int(mask.sum()),
        **_statuses(result, mask),
        **_rates(result, result.counted & mask),
        **_use(replicas),
        "accelerator_s": sum(use.accelerators * use.up_s for use in replicas),
        "energy_j": sum(use.energy_j for use in replicas),
        **_latencies(result, mask),
    }
