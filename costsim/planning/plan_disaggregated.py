"""Units of prefill and decode replicas: prompts are read on some, answers written on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.memory import max_batch, memory_budget, request_kv_bytes
from costsim.engine.step import step_time
from costsim.planning.plan_points import BATCHES, Candidate, mean_batch
from costsim.planning.targets import Target

_MOST = 8
_BUSY = np.linspace(0.05, 0.98, 94)


def disaggregated_points(
    candidates: Sequence[Candidate], isl: float, osl: float, target: Target
) -> tuple[list[Candidate], int]:
    """Return units of P prefill and D decode replicas that beat the plain replicas they are of.

    Args:
        candidates: plain replicas; their layouts serve both roles.
        isl, osl: tokens of a request. target: latencies.

    Returns:
        The units, and the operating points priced to find them.
    """
    found, considered = [], 0
    for plain in candidates:
        considered += len(BATCHES) + len(_BUSY)
        unit = _unit(plain, isl, osl, target)
        if unit is not None and unit.requests_per_s / unit.chips > (
            plain.requests_per_s / plain.chips
        ):
            found.append(unit)
    return found, considered


def _unit(plain: Candidate, isl: float, osl: float, target: Target) -> Candidate | None:
    reading = prefill_rate(plain.deployment, isl, target)
    writing = decode_rate(plain.deployment, isl, osl, target)
    if reading is None or writing is None:
        return None
    count = np.arange(1, _MOST + 1)
    p, d = np.meshgrid(count, count, indexing="ij")
    rate = np.minimum(p * reading[0], d * writing[0])
    best = int(np.argmax(rate / (p + d)))
    prefill, decode = int(p.flat[best]), int(d.flat[best])
    return replace(
        plain, requests_per_s=float(rate.flat[best]), ttft_s=reading[1], tpot_s=writing[1],
        batch_limit=writing[2], batch=writing[3], role="disaggregated", prefill=prefill,
        decode=decode, input_time_share=prefill / (prefill + decode),
    )  # fmt: skip


def prefill_rate(deployment: Deployment, isl: float, target: Target) -> tuple[float, float] | None:
    """Return the prompts/s that one prefill replica reads within the TTFT, and that TTFT.

    A prompt waits as in M/D/1: the mean wait is ρs/2(1 − ρ); the tail decays about as
    ρ·exp(−2(1 − ρ)t/(ρs)) (heavy-traffic limit). The cache then crosses the scale-out link.
    """
    settings = deployment.settings
    new = max(isl * (1.0 - settings.prefix_hit_share), 1.0)
    service = float(
        step_time(deployment, prefill_requests=1.0, prefill_tokens=new,
                  prefill_context=isl - new).seconds
    )  # fmt: skip
    pause = service + _transfer_s(deployment, isl)
    mean = pause + _BUSY * service / (2.0 * (1.0 - _BUSY))
    tail = pause + np.maximum(np.log(_BUSY / 0.01), 0.0) * _BUSY * service / (2 * (1 - _BUSY))
    good = (mean <= target.ttft_s) & (tail <= target.ttft_p99_s)
    if not good.any():
        return None
    last = int(np.flatnonzero(good)[-1])
    return float(_BUSY[last] / service), float(mean[last])


def _transfer_s(deployment: Deployment, isl: float) -> float:
    held = float(np.max(request_kv_bytes(deployment, isl)))
    link = deployment.hardware.scale_out
    return held / float(np.max(link.bandwidth_bytes_per_s)) + float(np.max(link.latency_s))


def decode_rate(
    deployment: Deployment, isl: float, osl: float, target: Target
) -> tuple[float, float, float, float] | None:
    """Return requests/s of one decode replica within the TPOT, that TPOT, limit and mean batch."""
    context = isl + osl / 2.0
    stages = float(deployment.layout.pp)
    step = step_time(deployment, decode_requests=np.ceil(BATCHES / stages),
                     decode_context=context)  # fmt: skip
    tpot: Any = np.broadcast_to(np.asarray(step.seconds), BATCHES.shape)
    room = float(np.max(max_batch(deployment, isl, osl, memory_budget(deployment))))
    good = (tpot <= min(target.tpot_s, target.tpot_p99_s)) & (room >= BATCHES)
    if not good.any():
        return None
    last = int(np.flatnonzero(good)[-1])
    limit = float(BATCHES[last])
    tails = np.isfinite([target.ttft_p99_s, target.tpot_p99_s]).any()
    mean = float(mean_batch(limit)) if tails else limit
    rate = np.interp(mean, BATCHES, BATCHES / (tpot * max(osl - 1.0, 1.0)))
    return float(rate), float(tpot[last]), limit, mean
