"""Separate prefill and decode pools under a fixed number of requests in flight.

B requests are always in flight. With b of them decoding in each of y decode replicas, n steps each
of t(b), and W(λ) spent in the prefill pool:

    λ = y·b/(n·t(b)),    B = λ·W(λ) + y·b                Little's law over both pools

A prefill replica starts a step when the last one ends and takes the prompts that have come since,
up to N: m = l·t(m) prompts at l prompts per second and replica, t(m) linear between one and N
prompts. A decode replica has a limited number of slots; where they are all taken, a request waits
for one in front of its first token (that token is sent by the decode side).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.benchmark import Benchmark, Waves, waves_of
from costsim.engine.deployment import Deployment
from costsim.engine.disaggregation import transfer_time
from costsim.engine.memory import max_batch
from costsim.engine.speculation import decode_steps, tokens_per_step
from costsim.engine.stacked import stacked_steps
from costsim.engine.step import StepTime

_HALVINGS = 40
_MOST_BUSY = 0.99
_KNOTS = (1 / 64, 1 / 8, 1.0)


@dataclass(frozen=True)
class DisaggregatedLoop:
    """Two pools with a fixed number of requests in flight; arrays broadcast.

    Args:
        ttft_s, tpot_s: mean latencies.
        requests_per_s: of all replicas.
        decoding: requests that decode, all replicas together.
        prefill_busy: share of its capacity that the prefill pool uses.
        slots_full: whether requests wait for a place in the decode pool.
        prefill, decode: a full prefill step, and a decode step of the largest batch.
        log_error_ttft, log_error_tpot, log_error_throughput: of log(actual / predicted).
    """

    ttft_s: Any
    tpot_s: Any
    requests_per_s: Any
    decoding: Any
    prefill_busy: Any
    slots_full: Any
    prefill: StepTime
    decode: StepTime
    log_error_ttft: Any
    log_error_tpot: Any
    log_error_throughput: Any


@dataclass(frozen=True)
class _PrefillPool:
    """One replica's steps: of one prompt, of as many as fit, and what each further one adds."""

    one_s: Any
    full_s: Any
    most: Any
    replicas: Any
    step: StepTime

    @property
    def capacity(self) -> Any:
        """Prompts per second of all replicas."""
        return self.replicas * self.most / self.full_s

    def time(self, rate: Any) -> Any:
        """Return the mean time of a prompt from its arrival to its end."""
        each = np.minimum(rate, _MOST_BUSY * self.capacity) / self.replicas
        slope = (self.full_s - self.one_s) / np.maximum(self.most - 1.0, 1e-9)
        together = each * (self.one_s - slope) / np.maximum(1.0 - each * slope, 1e-9)
        together = np.clip(together, 1.0, self.most)
        step = self.one_s + slope * (together - 1.0)
        return step * (1.0 + 0.5 * np.minimum(each * self.one_s, 1.0))


def disaggregated_loop(
    prefill: Deployment, decode: Deployment, isl: Any, osl: Any, in_flight: Any,
    prefill_replicas: Any = 1, decode_replicas: Any = 1, decode_slots: Any = np.inf,
    run: Benchmark | None = None,
) -> DisaggregatedLoop:
    """Return the steady state of two pools at ``in_flight`` requests.

    Args:
        prefill, decode: one replica of either pool.
        isl, osl: prompt and output tokens of a request (means).
        in_flight: requests in flight over both pools.
        prefill_replicas, decode_replicas: x and y.
        decode_slots: requests that a decode replica runs at once, where it is limited; never more
            than its memory holds.
        run: how the benchmark sends its prompts; None: it never began, and requests are spread.
    """
    isl, osl, total = (np.asarray(v, float) for v in (isl, osl, in_flight))
    x, y = np.asarray(prefill_replicas, float), np.asarray(decode_replicas, float)
    pool = _prefill_pool(prefill, isl, total, x)
    holds = np.asarray(max_batch(decode, isl, osl))
    holds = np.where(holds >= 1, holds, np.inf)
    most = np.maximum(np.minimum(total / y, np.minimum(decode_slots, holds)), 1.0)
    knots, steps = _decode_steps(decode, most, isl + 0.5 * osl)
    n = np.maximum(decode_steps(decode.settings, osl), 1e-9)
    outside = transfer_time(prefill, decode, isl) + prefill.settings.frontend_s
    # The decode side sends the first token: the step under way, those scheduled, and its own.
    looks = 0.5 * (decode.settings.poll_steps + 1.0) + float(decode.settings.async_scheduling)
    admit = 1.0 + looks * np.minimum(1.0, np.maximum(total / y - 1.0, 0.0))
    typing = prefill.settings.tokenize_s * isl
    busy_s = total / pool.capacity

    def state(b: Any) -> tuple[Any, Any, Any]:
        step = _between(knots, [s.seconds for s in steps], b)
        rate = np.minimum(y * b / (n * step), _MOST_BUSY * pool.capacity)
        waves = (waves_of(run, total, n * step, np.maximum(busy_s - pool.full_s, 0.0), pool.full_s)
                 if run else Waves())
        later = pool.time(rate * waves.density) + typing
        start = np.maximum(0.5 * (busy_s + pool.full_s), 0.5 * typing * total)
        return step, rate, later + waves.first * (start - later) + outside + admit * step

    low, high = np.zeros_like(most), most
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        step, rate, wait = state(middle)
        # Where the prefill pool is the limit, more decoding requests than it feeds cannot be.
        over = (rate * wait + y * middle > total) | (y * middle / (n * step)
                                                     > _MOST_BUSY * pool.capacity * 1.0001)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    step, rate, wait = state(high)
    rate = np.minimum(rate, y * high / (n * step))
    ttft = np.maximum(wait, total / rate - n * step)
    error = np.hypot(steps[-1].log_error, decode.settings.log_errors(pools=True)[0])
    error_ttft = np.hypot(pool.step.log_error, prefill.settings.log_errors(pools=True)[1])
    share = n * step / (n * step + ttft)
    return DisaggregatedLoop(
        ttft_s=ttft, tpot_s=step / tokens_per_step(decode.settings.speculation),
        requests_per_s=total / (ttft + n * step), decoding=y * high,
        prefill_busy=rate / pool.capacity, slots_full=high >= 0.999 * most,
        prefill=pool.step, decode=steps[-1], log_error_ttft=error_ttft, log_error_tpot=error,
        log_error_throughput=error * share + error_ttft * (1.0 - share),
    )


def _prefill_pool(prefill: Deployment, isl: Any, total: Any, replicas: Any) -> _PrefillPool:
    settings, groups = prefill.settings, np.asarray(prefill.layout.dp, float)
    new = np.maximum(isl * (1.0 - settings.prefix_hit_share), 1.0)
    budget = float(settings.max_num_batched_tokens)
    chunks = np.ceil(new / budget)
    chunk = new / chunks
    context = isl - new + 0.5 * (new - chunk)
    most = np.minimum(groups * np.maximum(np.floor(budget / chunk), 1.0),
                      np.maximum(total / replicas, 1.0))
    one, full = stacked_steps(prefill, prefill_requests=[np.ones_like(most), most],
                              prefill_tokens=[chunk] * 2, prefill_context=[context] * 2)
    return _PrefillPool(one.seconds * chunks, full.seconds * chunks, most, replicas, full)


def _decode_steps(decode: Deployment, most: Any, context: Any) -> tuple[list[Any], list[StepTime]]:
    """Return batches of the decode pool, ascending, and their steps."""
    micro = np.maximum(most / np.asarray(decode.layout.pp, float), 1.0)
    knots = [np.maximum(share * micro, np.minimum(micro, 1.0)) for share in _KNOTS]
    steps = stacked_steps(decode, decode_requests=knots, decode_context=[context] * len(knots))
    stages = np.asarray(decode.layout.pp, float)
    return [k * stages for k in knots], steps


def _between(knots: list[Any], times: list[Any], at: Any) -> Any:
    """Return the time at a batch, linear between the knots and constant below the first."""
    result = times[0]
    for i in range(1, len(knots)):
        slope = (times[i] - times[i - 1]) / np.maximum(knots[i] - knots[i - 1], 1e-12)
        result = result + slope * np.clip(at - knots[i - 1], 0.0, knots[i] - knots[i - 1])
    return result
