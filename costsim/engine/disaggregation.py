"""Prefill and decode on accelerators of their own, with the KV cache sent from one to the other.

x replicas read prompts at R_p requests/s each, y replicas decode at R_d each; the smaller of x·R_p
and y·R_d is the throughput, and x : y is right where both are equal. A decoding step is never
held up by a prompt, which is what the second pool buys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.memory import max_batch, request_kv_bytes
from costsim.engine.speculation import decode_steps, tokens_per_step
from costsim.engine.step import StepTime, step_time

# Prompts arrive at random, so a prefill pool kept this busy is the most that is planned for.
MOST_BUSY_PREFILL = 0.9


@dataclass(frozen=True)
class DisaggregatedPoint:
    """Two pools at work; arrays broadcast.

    Args:
        ttft_s, tpot_s, e2e_s: mean latencies, transfer included in TTFT.
        requests_per_s: of all replicas together.
        output_tokens_per_s_per_accelerator: over the accelerators of both pools.
        prefill_replicas, decode_replicas: x and y.
        ratio: decode replicas per prefill replica at which neither waits.
        prefill_busy, decode_busy: share of its capacity that each pool uses.
        transfer_s: of one request's cache; exposed_s: what the prefill does not hide of it.
        fits: whether the decode batch fits.
        prefill, decode: time of a prefill step and of a decode step.
        bottleneck: ``prefill``, ``decode`` or ``transfer``.
    """

    ttft_s: Any
    tpot_s: Any
    e2e_s: Any
    requests_per_s: Any
    output_tokens_per_s_per_accelerator: Any
    prefill_replicas: Any
    decode_replicas: Any
    ratio: Any
    prefill_busy: Any
    decode_busy: Any
    transfer_s: Any
    exposed_s: Any
    fits: Any
    prefill: StepTime
    decode: StepTime
    bottleneck: Any


def transfer_time(prefill: Deployment, decode: Deployment, isl: Any) -> Any:
    """Return the seconds to send the cache of one prompt between the pools.

    Every accelerator of a replica sends (or receives) its share over the scale-out fabric at the
    same time; the side with the larger share decides.

    Args:
        prefill, decode: the two deployments.
        isl: prompt tokens.
    """
    sent, taken = (request_kv_bytes(d, isl) for d in (prefill, decode))
    links = [d.hardware.scale_out for d in (prefill, decode)]
    out, into = (np.asarray(link.bandwidth_bytes_per_s, float) for link in links)
    return np.maximum(sent / out, taken / into) + np.asarray(links[0].latency_s, float)


def disaggregate(
    prefill: Deployment,
    decode: Deployment,
    isl: Any,
    osl: Any,
    decode_batch: Any,
    prefill_batch: Any = 1,
    prefill_replicas: Any = None,
    decode_replicas: Any = None,
    overlap: float = 0.0,
) -> DisaggregatedPoint:
    """Return the steady state of separate prefill and decode pools.

    Args:
        prefill, decode: one replica of either pool.
        isl, osl: prompt and output tokens of a request.
        decode_batch: requests in flight in one decode replica.
        prefill_batch: prompts in one prefill step.
        prefill_replicas, decode_replicas: x and y; where both are None one prefill replica and
            as many (also fractional) decode replicas as it feeds at 90 % of its capacity.
        overlap: share of the transfer sent layer by layer while the prompt is still read.

    Source: DistServe (Zhong et al. 2024, arXiv:2401.09670); physics of the steps as elsewhere.
    """
    isl, osl = np.asarray(isl, float), np.asarray(osl, float)
    batch, prompts = np.asarray(decode_batch, float), np.asarray(prefill_batch, float)
    read = _prefill_step(prefill, prompts, isl)
    chunks = _chunks(prefill, isl)
    stages_p, stages_d = (np.asarray(d.layout.pp, float) for d in (prefill, decode))
    prefill_rate = prompts * stages_p / (read.seconds * chunks)
    micro = np.maximum(batch / stages_d, 1.0)
    step = step_time(decode, decode_requests=micro, decode_context=isl + 0.5 * osl)
    steps = decode_steps(decode.settings, osl)
    decode_rate = batch / np.maximum(steps * step.seconds, 1e-12)
    ratio = prefill_rate * MOST_BUSY_PREFILL / decode_rate
    x, y = _pools(prefill_replicas, decode_replicas, ratio)
    rate = np.minimum(x * prefill_rate * MOST_BUSY_PREFILL, y * decode_rate)
    busy = rate / (x * prefill_rate)
    # M/D/x in the prefill pool, by the usual √ approximation for several servers.
    wait = read.seconds * chunks * busy ** np.sqrt(2.0 * (x + 1.0)) / (
        2.0 * x * np.maximum(1.0 - busy, 1e-3))
    sent = transfer_time(prefill, decode, isl)
    exposed = sent * (1.0 - overlap)
    ttft = wait + read.seconds * chunks + exposed + _front_end(prefill, isl)
    decode_s = steps * step.seconds
    accelerators = x * np.asarray(prefill.accelerators) + y * np.asarray(decode.accelerators)
    link_rate = y / np.maximum(sent, 1e-30)
    limits = np.stack(np.broadcast_arrays(x * prefill_rate * MOST_BUSY_PREFILL, y * decode_rate,
                                          link_rate))
    rate = np.minimum(rate, link_rate)
    return DisaggregatedPoint(
        ttft_s=ttft, tpot_s=step.seconds / tokens_per_step(decode.settings.speculation),
        e2e_s=ttft + decode_s, requests_per_s=rate,
        output_tokens_per_s_per_accelerator=rate * osl / accelerators,
        prefill_replicas=x, decode_replicas=y, ratio=ratio, prefill_busy=rate / (x * prefill_rate),
        decode_busy=rate / (y * decode_rate), transfer_s=sent, exposed_s=exposed,
        fits=batch <= max_batch(decode, isl, osl), prefill=read, decode=step,
        bottleneck=np.asarray(["prefill", "decode", "transfer"])[np.argmin(limits, axis=0)],
    )


def _front_end(prefill: Deployment, isl: Any) -> Any:
    """Return the time outside the engine."""
    return prefill.settings.frontend_s + prefill.settings.tokenize_s * isl


def _chunks(prefill: Deployment, isl: Any) -> Any:
    """Return the steps that a prompt is spread over."""
    new = np.maximum(isl * (1.0 - prefill.settings.prefix_hit_share), 1.0)
    return np.ceil(new / float(prefill.settings.max_num_batched_tokens))


def _prefill_step(prefill: Deployment, prompts: Any, isl: Any) -> StepTime:
    """Return the time of one step of a pool that only reads prompts."""
    chunks = _chunks(prefill, isl)
    new = np.maximum(isl * (1.0 - prefill.settings.prefix_hit_share), 1.0)
    chunk = new / chunks
    return step_time(prefill, prompts, chunk, isl - new + 0.5 * (new - chunk))


def _pools(prefill_replicas: Any, decode_replicas: Any, ratio: Any) -> tuple[Any, Any]:
    """Return x and y; what is not given balances the other."""
    if prefill_replicas is None and decode_replicas is None:
        return np.ones_like(ratio), ratio
    if prefill_replicas is None:
        y = np.asarray(decode_replicas, float)
        return y / ratio, y
    x = np.asarray(prefill_replicas, float)
    return x, x * ratio if decode_replicas is None else np.asarray(decode_replicas, float)
