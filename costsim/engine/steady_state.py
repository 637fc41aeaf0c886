"""Steady state of continuous batching: a closed loop of B requests that decode and prefill.

Every request needs its prompt prefilled once and OSL − 1 further steps. While it decodes, the
prompts of the others are prefilled in between (in chunks that share the steps, or in steps of
their own), which stretches its time per output token: TPOT = t_decode + (B/OSL)·Δ, Δ the extra
time of one prompt. The loop closes as B = X·(TTFT + (OSL − 1)·TPOT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.memory import max_batch, memory_budget
from costsim.engine.speculation import tokens_per_step
from costsim.engine.step import StepTime, step_time
from costsim.errors import InputError
from costsim.ops.tally import RESOURCES


@dataclass(frozen=True)
class OperatingPoint:
    """A deployment at a constant number of requests in flight; arrays broadcast.

    Args:
        batch: requests in flight in the replica (B); isl, osl: tokens in and out of each.
        ttft_s, tpot_s, e2e_s: mean latencies.
        requests_per_s, output_tokens_per_s: of the replica.
        output_tokens_per_s_per_accelerator: the same per accelerator.
        fits: whether B requests of full length fit the memory.
        max_batch: how many do.
        decode, prefill: time of a decode step and of one prompt on its own.
        bottleneck: ``compute``, ``memory``, ``network`` or ``host``.
        mfu, mbu: useful FLOP over peak, bytes over bandwidth.
        activity: share of the accelerator's dynamic power that is drawn.
        log_error_ttft, log_error_tpot, log_error_throughput: of log(actual / predicted).
        input_time_share: share of busy time spent on prompts.
    """

    batch: Any
    isl: Any
    osl: Any
    ttft_s: Any
    tpot_s: Any
    e2e_s: Any
    requests_per_s: Any
    output_tokens_per_s: Any
    output_tokens_per_s_per_accelerator: Any
    fits: Any
    max_batch: Any
    decode: StepTime
    prefill: StepTime
    bottleneck: Any
    mfu: Any
    mbu: Any
    activity: Any
    log_error_ttft: Any
    log_error_tpot: Any
    log_error_throughput: Any
    input_time_share: Any


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        array = np.asarray(value, float)
        if not np.all(np.isfinite(array) & (array > 0)):
            raise InputError(f"{name} = {value}: must be a positive number")


@dataclass(frozen=True)
class _Prompt:
    """One prompt's prefill: its own time and what it adds to the decodes beside it."""

    step: StepTime
    alone_s: Any
    extra_s: Any
    chunks: Any


def _prompt(deployment: Deployment, batch: Any, isl: Any, decode: StepTime) -> _Prompt:
    """Return the cost of one prompt, in chunks of the token budget where chunking is on."""
    settings = deployment.settings
    new = np.maximum(np.asarray(isl, float) * (1.0 - settings.prefix_hit_share), 1.0)
    cached = np.asarray(isl, float) - new
    budget = float(settings.max_num_batched_tokens)
    chunks = np.ceil(new / budget)
    size = new / chunks
    # The mean chunk sees half of the new tokens before it, besides the cached prefix.
    context = cached + (new - size) / 2.0
    step = step_time(deployment, prefill_requests=1.0, prefill_tokens=size,
                     prefill_context=context)
    alone = step.seconds * chunks
    if not settings.chunked_prefill:
        return _Prompt(step, alone, alone, chunks)
    # In a shared step the weights are read once and the host works once for both.
    shared = np.minimum(decode.seconds, step.seconds)
    saved = shared * _shared_share(decode)
    extra = np.maximum(step.seconds - saved, 0.1 * step.seconds) * chunks
    return _Prompt(step, alone, extra * (1.0 + settings.prefill_interference), chunks)


_NOT_SHARED = ("attention (decode)", "indexer", "sampling", "linear attention")


def _shared_share(decode: StepTime) -> Any:
    """Return the share of a decode step that a prefill in the same pass makes unnecessary."""
    own: Any = sum(decode.by_operator.get(name, 0.0) for name in _NOT_SHARED)
    return np.clip(1.0 - own / np.maximum(decode.seconds, 1e-30), 0.0, 1.0)


def _close_loop(
    batch: Any, osl: Any, steps: Any, t_decode: Any, extra: Any, alone: Any, dp: Any
) -> tuple[Any, Any, Any, Any]:
    """Return TTFT, time per step, throughput and prefill share of the closed loop.

    Prompts of a group queue for the same steps: with prefill utilisation ρ a new prompt waits
    about ρ·Δ/2(1 − ρ), never more than the other B − 1 prompts together.
    """
    b, group = np.asarray(batch, float), np.asarray(batch, float) / dp
    decoding = group
    ttft, per_step = alone + t_decode, t_decode
    for _ in range(12):
        per_step = t_decode + decoding / steps * extra
        life = steps * per_step
        rho = np.clip(extra * decoding / np.maximum(life, 1e-30), 0.0, 0.98)
        wait = np.minimum(rho * extra / (2.0 * (1.0 - rho)), np.maximum(group - 1.0, 0.0) * extra)
        ttft = wait + 0.5 * t_decode + alone
        decoding = group * life / (life + ttft)
    rate = b / (ttft + steps * per_step)
    return ttft, per_step, rate, rho


def operating_point(deployment: Deployment, *, batch: Any, isl: Any, osl: Any) -> OperatingPoint:
    """Return the steady state of a deployment at ``batch`` requests in flight.

    Args:
        deployment: what runs; fields of layout and hardware may be arrays.
        batch: requests in flight in the replica.
        isl, osl: prompt and output tokens of a request (means).

    Raises:
        InputError: a number is not positive.
    """
    _check_positive(batch=batch, isl=isl, osl=osl)
    layout = deployment.layout
    pp, dp = np.asarray(layout.pp, float), np.asarray(layout.dp, float)
    b, out = np.asarray(batch, float), np.asarray(osl, float)
    context = np.asarray(isl, float) + out / 2.0
    per_step, width = tokens_per_step(deployment.settings.speculation)
    decode = step_time(deployment, decode_requests=np.ceil(b / pp), decode_context=context,
                       decode_width=width)
    draft = _draft_time(deployment, decode)
    t_decode = decode.seconds + draft
    prompt = _prompt(deployment, b, isl, decode)
    steps = np.maximum(out - 1.0, 1e-9) / per_step
    ttft, step_s, rate, rho = _close_loop(b / pp, out, np.maximum(steps, 1e-9), t_decode,
                                          prompt.extra_s / pp, prompt.alone_s, dp)
    rate = rate * pp
    tpot = step_s / per_step
    budget = memory_budget(deployment)
    limit = max_batch(deployment, np.asarray(isl, float) + out, budget)
    tokens = rate * out
    return _assemble(deployment, b, isl, osl, ttft, tpot, steps * step_s, rate, tokens, limit,
                     budget.fits, decode, prompt, rho, per_step)


def _draft_time(deployment: Deployment, decode: StepTime) -> Any:
    """Return the time of the draft steps: γ passes of an MTP or draft layer beside each verify."""
    speculation = deployment.settings.speculation
    if speculation is None:
        return 0.0
    layers = max(sum(each.count for each in deployment.model.layers), 1)
    # One layer's share of the step, plus the head, once per drafted token.
    head = decode.by_operator.get("lm head", 0.0)
    return speculation.draft_tokens * ((decode.seconds - head) / layers + head)


def _assemble(
    deployment: Deployment, batch: Any, isl: Any, osl: Any, ttft: Any, tpot: Any, decode_s: Any,
    rate: Any, tokens: Any, limit: Any, fits: Any, decode: StepTime, prompt: _Prompt, rho: Any,
    per_step: Any,
) -> OperatingPoint:
    n = np.asarray(deployment.layout.accelerators, float)
    steps_per_s = tokens / (np.maximum(batch, 1.0) * per_step)
    stages = np.asarray(deployment.layout.pp, float)
    flop = (decode.flop * steps_per_s * stages + prompt.step.flop * prompt.chunks * rate) / stages
    moved = (decode.memory_bytes * steps_per_s * stages
             + prompt.step.memory_bytes * prompt.chunks * rate) / stages
    rate_key = _main_rate(deployment)
    mfu = flop / np.asarray(deployment.hardware.peak(rate_key), float)
    mbu = moved / np.asarray(deployment.hardware.memory_bandwidth_bytes_per_s, float)
    total = {r: decode.by_resource[r] * (1.0 - rho) + prompt.step.by_resource[r]
             / np.maximum(prompt.step.seconds, 1e-30) * decode.seconds * rho for r in RESOURCES}
    error_tpot = decode.log_error * (1.0 - rho) + prompt.step.log_error * rho
    return OperatingPoint(
        batch=batch, isl=isl, osl=osl, ttft_s=ttft, tpot_s=tpot, e2e_s=ttft + decode_s,
        requests_per_s=rate, output_tokens_per_s=tokens,
        output_tokens_per_s_per_accelerator=tokens / n, fits=fits & (batch <= limit),
        max_batch=limit, decode=decode, prefill=prompt.step, bottleneck=_largest(total),
        mfu=mfu, mbu=mbu, activity=np.clip(np.maximum(mfu, 0.7 * mbu) + 0.2 * mbu, 0.0, 1.0),
        log_error_ttft=prompt.step.log_error, log_error_tpot=error_tpot,
        log_error_throughput=error_tpot, input_time_share=rho,
    )


def _main_rate(deployment: Deployment) -> str:
    from costsim.dtypes import rate_of

    precision = deployment.precision
    weight = precision.experts if _has_experts(deployment) else precision.ffn
    return rate_of(weight, precision.activation if weight != "bf16" else "bf16")


def _has_experts(deployment: Deployment) -> bool:
    return any(each.ffn and each.ffn.kind == "moe" for each in deployment.model.layers)


def _largest(parts: dict[str, Any]) -> Any:
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(parts[r], float) for r in RESOURCES)))
    return np.asarray(RESOURCES)[np.argmax(stacked, axis=0)]
