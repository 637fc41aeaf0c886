"""Steady state of continuous batching: latencies, throughput and limits at a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element, rate_of
from costsim.engine.benchmark import Benchmark, waves_of
from costsim.engine.deployment import Deployment
from costsim.engine.loop import LoopState, StepCurve, close_loop, most_decoding
from costsim.engine.memory import max_batch
from costsim.engine.speculation import decode_steps, tokens_per_step, verify_width
from costsim.engine.stacked import stacked_steps
from costsim.engine.step import StepTime
from costsim.errors import InputError
from costsim.models.architecture import is_moe
from costsim.ops.tally import RESOURCES

# Shares of the batch at which the decode step is computed; it is linear in between.
_KNOTS = (1 / 64, 1 / 8, 1.0)


@dataclass(frozen=True)
class OperatingPoint:
    """A deployment at a constant number of requests in flight; arrays broadcast.

    Args:
        batch: requests in flight in the replica (B); isl, osl: tokens in and out of each.
        ttft_s, tpot_s, e2e_s: mean latencies.
        requests_per_s, output_tokens_per_s: of the replica.
        output_tokens_per_s_per_accelerator: the same per accelerator.
        fits: whether B such requests fit the memory and the engine's limit.
        max_batch: how many do.
        decode, prefill: time of a decode step of the batch (of as many requests as can decode,
            where prompts fill the steps), and of one chunk of a prompt alone.
        bottleneck: ``compute``, ``memory``, ``network`` or ``host``.
        mfu, mbu: useful FLOP over peak, bytes over bandwidth.
        activity: share of the accelerator's dynamic power that is drawn.
        log_error_ttft, log_error_tpot, log_error_throughput: of log(actual / predicted).
        input_time_share: share of busy time spent on prompts.
        decoding: mean requests that decode; the rest wait or prefill.
        waiting_s: part of TTFT before the prompt's own steps.
        waited_steps: steps of it that are spent waiting for a look or for other prompts.
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
    decoding: Any
    waiting_s: Any
    waited_steps: Any


def operating_point(
    deployment: Deployment, batch: Any, isl: Any, osl: Any, encoder_s: Any = 0.0,
    holds: Any = None, detailed: bool = True, run: Benchmark | None = None,
) -> OperatingPoint:
    """Return the steady state of a deployment at ``batch`` requests in flight.

    Args:
        deployment: what runs; fields of layout and hardware may be arrays.
        batch: requests in flight in the replica. It may be above what fits (``fits`` is False
            then, and times are those of a memory large enough).
        isl, osl: prompt and output tokens of a request (means).
        encoder_s: time of a request's images and audio in their encoders (`engine.encoder`).
        holds: requests that fit, where that is known already.
        detailed: whether the steps' breakdown by operator is needed.
        run: the benchmark that these are all requests of; None for a stream without beginning.

    Raises:
        InputError: a number is not positive.

    Formulas: `costsim.engine.loop` and docs/engine.md.
    """
    _check_positive(batch=batch, isl=isl, osl=osl)
    batch, isl, osl = (np.asarray(x, float) for x in (batch, isl, osl))
    # Each pipeline stage always works on one of pp micro-batches.
    stages = np.asarray(deployment.layout.pp, float)
    micro = np.maximum(batch / stages, 1.0)
    prompt = _Prompt.of(deployment, isl)
    steps = decode_steps(deployment.settings, osl)
    most = _most_decoding(deployment, micro, steps, prompt)
    curve, decode, prefill, mixed = _curve(deployment, most, isl, osl, prompt, detailed)
    curve = _with_encoder(curve, encoder_s)
    if run is not None:
        room = np.maximum(curve.room(most), curve.first_tokens)
        together = deployment.settings.chunked_prefill
        start = np.maximum(micro * prompt.new / room - 1.0, 0.0) if together else 0.0
        curve = replace(curve, waves=waves_of(run, micro, steps, start))
    loop = close_loop(curve, micro, steps, not deployment.settings.chunked_prefill)
    limit = max_batch(deployment, isl, osl) if holds is None else holds
    return _assemble(deployment, batch, isl, osl, steps, most, limit, loop, decode, prefill, mixed,
                     prompt)


def closed_loop(
    deployment: Deployment, in_flight: Any, isl: Any, osl: Any, run: Benchmark | None = None
) -> OperatingPoint:
    """Return the mean of a benchmark that keeps requests in flight, fitting or not.

    Where more are in flight than the memory and the engine's limit hold, the rest wait in front of
    the engine: Little's law gives the time they add to TTFT.

    Args:
        deployment: what runs. Where not even one request fits by its memory rule, the limit is
            taken as wrong (it runs, after all) and left out.
        in_flight, isl, osl: as in `operating_point`.
        run: how the benchmark sends its prompts; None: it never began, and requests are spread.
    """
    total = np.asarray(in_flight, float)
    holds = np.asarray(max_batch(deployment, np.asarray(isl, float), np.asarray(osl, float)))
    inside = np.where(holds >= 1, np.minimum(total, np.maximum(holds, 1.0)), total)
    queue = total - inside
    if run is not None:
        # Of the first round only those wait that do not fit, and on average half of that.
        rounds = np.asarray(run.rounds, float)
        queue = queue * (1.0 - (1.0 - 0.5 * queue / total) / np.maximum(rounds, 1.0))
        run = replace(run, rounds=rounds * total / inside)
    point = operating_point(deployment, inside, isl, osl, run=run)
    queue = queue / point.requests_per_s
    return replace(point, batch=total, ttft_s=point.ttft_s + queue, e2e_s=point.e2e_s + queue,
                   waiting_s=point.waiting_s + queue, fits=point.fits & (total <= inside))


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        array = np.asarray(value, float)
        if not np.all(np.isfinite(array) & (array > 0)):
            raise InputError(f"{name} = {value}: must be a positive number")


@dataclass(frozen=True)
class _Prompt:
    """How a prompt is cut up: new and cached tokens, chunks, and the mean chunk."""

    new: Any
    cached: Any
    chunks: Any
    chunk: Any
    context: Any
    budget: Any

    @classmethod
    def of(cls, deployment: Deployment, isl: Any) -> _Prompt:
        settings = deployment.settings
        new = np.maximum(isl * (1.0 - settings.prefix_hit_share), 1.0)
        budget = float(settings.max_num_batched_tokens)
        chunks = np.ceil(new / budget)
        chunk = new / chunks
        # The mean chunk sees half of the new tokens before it, besides the cached prefix.
        return cls(new, isl - new, chunks, chunk, isl - new + 0.5 * (new - chunk), budget)


def _most_decoding(deployment: Deployment, micro: Any, steps: Any, prompt: _Prompt) -> Any:
    """Return how many requests of a micro-batch decode at most.

    Where their prompts fill every step's budget, more requests only wait for it.
    """
    settings = deployment.settings
    beside = float(verify_width(settings) if settings.chunked_prefill else 0)
    groups = np.asarray(deployment.layout.dp, float)
    most = most_decoding(groups * prompt.budget, prompt.new, beside, steps)
    return np.maximum(np.minimum(micro, most), np.minimum(micro, 1.0))


def _curve(
    deployment: Deployment, micro: Any, isl: Any, osl: Any, prompt: _Prompt, detailed: bool
) -> tuple[StepCurve, StepTime, StepTime, StepTime]:
    """Return the step times that the loop needs, and the steps behind them.

    Args:
        deployment, isl, osl, prompt, detailed: as in `operating_point`.
        micro: requests that decode at most.
    """
    context = isl + 0.5 * osl
    groups = np.asarray(deployment.layout.dp, float)
    settings = deployment.settings
    width = verify_width(settings)
    together = settings.chunked_prefill
    room = np.maximum(prompt.budget - (width * micro / groups if together else 0.0),
                      0.25 * prompt.budget)
    many = np.maximum(groups * room / prompt.chunk, 1.0)
    knots = [np.maximum(share * micro, np.minimum(micro, 1.0)) for share in _KNOTS]
    beside = micro if together else 0.0 * micro
    *decodes, first, full, alone = stacked_steps(
        deployment, detailed, prefill_requests=[0.0, 0.0, 0.0, 1.0, many, 1.0],
        prefill_tokens=[prompt.chunk] * 6, prefill_context=[prompt.context] * 6,
        decode_requests=[*knots, beside, beside, 0.0], decode_context=[context] * 6)
    base = decodes[-1].seconds if together else 0.0
    stretch = 1.0 + settings.prefill_interference
    curve = StepCurve(
        requests=knots, decode_s=[d.seconds for d in decodes],
        first_s=np.maximum(first.seconds - base, 0.0) * stretch, first_tokens=prompt.chunk,
        full_s=np.maximum(full.seconds - base, 0.0) * stretch, full_tokens=many * prompt.chunk,
        budget_tokens=groups * prompt.budget, decode_tokens=float(width if together else 0),
        alone_s=alone.seconds, chunks=prompt.chunks, prompt_tokens=prompt.new,
        frontend_s=settings.frontend_s, tokenize_s=settings.tokenize_s * isl,
        poll_steps=float(settings.poll_steps), ahead_steps=float(settings.async_scheduling),
        whole_prompts=not settings.split_prompts,
        hold_steps=float(settings.hold_steps),
        hold_tokens=settings.hold_share * groups * prompt.budget,
        rank_hold_steps=float(settings.rank_hold_steps), ranks=groups,
    )
    return curve, decodes[-1], alone, first


def _with_encoder(curve: StepCurve, encoder_s: Any) -> StepCurve:
    """Return the curve with an encoder's time in front of every prompt."""
    if not np.any(encoder_s):
        return curve
    chunk = np.asarray(encoder_s, float) / curve.chunks
    return replace(curve, first_s=curve.first_s + chunk, alone_s=curve.alone_s + chunk,
                   full_s=curve.full_s + chunk * curve.full_tokens / curve.first_tokens)


def _assemble(
    deployment: Deployment, batch: Any, isl: Any, osl: Any, steps: Any, most: Any, limit: Any,
    loop: LoopState, decode: StepTime, prefill: StepTime, mixed: StepTime, prompt: _Prompt,
) -> OperatingPoint:
    accelerators = np.asarray(deployment.layout.accelerators, float)
    tpot = loop.step_s / tokens_per_step(deployment.settings.speculation)
    decode_s = steps * loop.step_s
    rate = batch / (loop.ttft_s + decode_s)
    mfu, mbu = _utilisation(deployment, most, rate, steps, decode, prefill, prompt)
    share = loop.prompt_share
    added_tpot, added_ttft = deployment.settings.log_errors()
    error = np.hypot(decode.log_error * (1.0 - share) + prefill.log_error * share, added_tpot)
    error_ttft = np.hypot(prefill.log_error, added_ttft)
    weight = decode_s / (decode_s + loop.ttft_s)
    return OperatingPoint(
        batch=batch, isl=isl, osl=osl, ttft_s=loop.ttft_s, tpot_s=tpot,
        e2e_s=loop.ttft_s + decode_s, requests_per_s=rate, output_tokens_per_s=rate * osl,
        output_tokens_per_s_per_accelerator=rate * osl / accelerators,
        fits=batch <= limit, max_batch=limit, decode=decode, prefill=prefill,
        bottleneck=_bottleneck(decode, mixed, share), mfu=mfu, mbu=mbu,
        activity=np.clip(np.maximum(mfu, mbu), 0.0, 1.0),
        log_error_ttft=error_ttft, log_error_tpot=error,
        log_error_throughput=error * weight + error_ttft * (1.0 - weight),
        input_time_share=share,
        decoding=np.minimum(loop.decoding * np.asarray(deployment.layout.pp, float), batch),
        waiting_s=loop.waiting_s, waited_steps=loop.waited_steps,
    )


def _utilisation(
    deployment: Deployment, decoding: Any, rate: Any, steps: Any, decode: StepTime,
    prefill: StepTime, prompt: _Prompt,
) -> tuple[Any, Any]:
    """Return model FLOP and bandwidth utilisation, decode and prompts together.

    Args:
        deployment, rate, steps, prompt: of the operating point.
        decoding: requests of the decode step.
        decode, prefill: the steps.
    """
    hardware, stages = deployment.hardware, np.asarray(deployment.layout.pp, float)
    # Steps hold work of all stages: one accelerator has a stage's share. A prompt on its own is
    # one of dp groups' work.
    rounds = rate * steps / decoding
    prompts = rate * prompt.chunks / np.asarray(deployment.layout.dp, float)
    flop = (decode.flop * rounds + prefill.flop * prompts) / stages
    moved = (decode.memory_bytes * rounds + prefill.memory_bytes * prompts) / stages
    return (flop / np.asarray(hardware.peak(main_rate(deployment)), float),
            np.minimum(moved / np.asarray(hardware.memory_bandwidth_bytes_per_s, float), 1.0))


def main_rate(deployment: Deployment) -> str:
    """Return the rate key of most of the arithmetic (experts, or the dense FFN)."""
    precision = deployment.precision
    weight = precision.experts if is_moe(deployment.model) else precision.ffn
    plain = bytes_per_element(weight) >= 2
    return rate_of(weight, "bf16" if plain else precision.activation)


def _bottleneck(decode: StepTime, mixed: StepTime, share: Any) -> Any:
    """Return the resource with the largest part of the steps' time."""
    parts = [decode.by_resource[r] * (1.0 - share) / decode.seconds
             + np.maximum(mixed.by_resource[r] - decode.by_resource[r], 0.0) * share
             / mixed.seconds for r in RESOURCES]
    stacked = np.stack(np.broadcast_arrays(*parts))
    return np.asarray(RESOURCES)[np.argmax(stacked, axis=0)]
