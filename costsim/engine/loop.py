"""The closed loop of continuous batching: how decodes and prompts share the steps of an engine.

B requests are always in flight; each finished one is followed by a new one. With b of them
decoding, n = (OSL − 1)/(tokens per step) steps per request and p = b/n prompts started per step:

    t(b)   = t_decode(b) + p·Δ                       mean step, Δ: what a prompt adds
    TTFT   = t(b) + W(b) + own chunks                waits for the step under way, then the queue
    B      = b·(1 + TTFT/(n·t(b)))                   Little's law over both stages

A mean step has p prompts; those of the same step share its fixed costs. Prompts beyond a step's
token budget queue for the next one like customers of an M/D/1 queue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

_STEPS = 9
_MOST_BUSY = 0.999


@dataclass(frozen=True)
class StepCurve:
    """Times of one micro-batch's steps, as the loop needs them; arrays broadcast.

    Args:
        requests: decoding requests at the knots, ascending (list of arrays).
        decode_s: decode step at each knot.
        first_s: what one prompt's chunk adds to a decode step (or takes on its own).
        first_tokens: tokens of that chunk.
        full_s, full_tokens: the same for a step filled to the token budget.
        budget_tokens: of all groups together, decoded tokens included where they share steps.
        decode_tokens: that one decoding request takes of it.
        alone_s: one chunk of a prompt in a step of its own.
        chunks: steps that a prompt is spread over.
        prompt_tokens: new tokens of a prompt.
        clustering: share of the other requests' prompts that a prompt waits for besides.
        frontend_s: outside the engine, in front of the first token.
        poll_steps: steps between two looks for new requests.
    """

    requests: list[Any]
    decode_s: list[Any]
    first_s: Any
    first_tokens: Any
    full_s: Any
    full_tokens: Any
    budget_tokens: Any
    decode_tokens: Any
    alone_s: Any
    chunks: Any
    prompt_tokens: Any
    clustering: Any = 0.0
    frontend_s: float = 0.0
    poll_steps: float = 1.0

    def decode(self, requests: Any) -> Any:
        """Return the decode step at a number of requests, linear between the knots."""
        knots, result = self.requests, self.decode_s[0]
        for i, slope in enumerate(self._decode_slopes, 1):
            beyond = np.minimum(requests, knots[i]) if i < len(knots) - 1 else requests
            result = result + slope * np.maximum(beyond - knots[i - 1], 0.0)
        return result

    def room(self, requests: Any) -> Any:
        """Return the prompt tokens that a step holds beside decoding requests."""
        return np.maximum(self.budget_tokens - self.decode_tokens * requests,
                          0.25 * self.budget_tokens)

    def prompts(self, tokens: Any) -> Any:
        """Return what a step's prompt tokens add to it, linear between the two chunks known."""
        return self.first_s + self._prompt_slope * (tokens - self.first_tokens)

    @cached_property
    def _decode_slopes(self) -> list[Any]:
        knots, times = self.requests, self.decode_s
        return [(times[i] - times[i - 1]) / np.maximum(knots[i] - knots[i - 1], 1e-12)
                for i in range(1, len(knots))]

    @cached_property
    def _prompt_slope(self) -> Any:
        span = np.maximum(self.full_tokens - self.first_tokens, 1e-12)
        return np.where(self.full_tokens > self.first_tokens * 1.0001,
                        (self.full_s - self.first_s) / span, self.first_s / self.first_tokens)


@dataclass(frozen=True)
class LoopState:
    """The steady state.

    Args:
        decoding: requests that decode.
        step_s: mean step.
        ttft_s: time to first token.
        waiting_s: the part of it before the prompt's own chunks.
        requests_per_s: throughput.
        prompt_share: share of the engine's time that prompts take.
        mixed_share: share of the steps with prompts in them.
    """

    decoding: Any
    step_s: Any
    ttft_s: Any
    waiting_s: Any
    requests_per_s: Any
    prompt_share: Any
    mixed_share: Any


def close_loop(curve: StepCurve, batch: Any, steps: Any, prefill_first: bool) -> LoopState:
    """Return the steady state of ``batch`` requests in flight.

    Args:
        curve: times of the steps.
        batch: requests of the micro-batch (B).
        steps: decode steps of each request (n); 0 where one token is generated.
        prefill_first: prompts take steps of their own, and decodes wait.
    """
    b, n = np.asarray(batch, float), np.maximum(np.asarray(steps, float), 1e-9)
    most = np.minimum(b, most_decoding(curve.budget_tokens, curve.prompt_tokens,
                                       curve.decode_tokens, n))
    low, high = np.zeros_like(most), most
    below, above = -b, _surplus(_at(curve, most, b, n, prefill_first), b, n)
    for _ in range(_STEPS):
        # Regula falsi with the Illinois rule: halve the end that stays.
        share = np.where(above > 0, below / np.minimum(below - above, -1e-30), 1.0)
        guess = low + (high - low) * share
        value = _surplus(_at(curve, guess, b, n, prefill_first), b, n)
        over = value > 0
        low, high = np.where(over, low, guess), np.where(over, guess, high)
        below, above = np.where(over, 0.5 * below, value), np.where(over, value, 0.5 * above)
    state = _at(curve, guess, b, n, prefill_first)
    # Where prompts fill every step, the rest of the requests wait for the budget.
    life, room = n * state.step_s, np.maximum(curve.room(guess), curve.first_tokens)
    full_step = curve.prompts(room) + (0.0 if prefill_first else curve.decode(guess))
    most_rate = np.minimum(most / np.maximum(life, 1e-30), room / curve.prompt_tokens / full_step)
    ttft = np.maximum(state.ttft_s, b / most_rate - life)
    rate = b / (ttft + life)
    # A request's share of the decode steps; the rest of the engine's time went to prompts.
    decodes = n * curve.decode(guess) / np.maximum(guess, 1.0)
    spent = np.maximum(1.0 / rate - curve.frontend_s / b, 1e-30)
    return replace(state, ttft_s=ttft, requests_per_s=rate,
                   prompt_share=np.clip(1.0 - decodes / spent, 0.0, 1.0),
                   waiting_s=state.waiting_s + ttft - state.ttft_s)


def most_decoding(budget: Any, prompt: Any, decode: Any, steps: Any) -> Any:
    """Return the requests whose prompts and decodes fill every step.

    Args:
        budget: tokens of a step, of all groups.
        prompt: new tokens of a prompt.
        decode: tokens of the budget that a decoding request takes.
        steps: decode steps of a request.
    """
    # More prompts per step than the budget holds cannot be.
    return budget / (prompt / np.maximum(steps, 1e-9) / _MOST_BUSY + decode)


def _surplus(state: LoopState, batch: Any, steps: Any) -> Any:
    """Return by how many requests a guess is above the batch."""
    return state.decoding * (1.0 + state.ttft_s / (steps * state.step_s)) - batch


def _at(curve: StepCurve, decoding: Any, batch: Any, steps: Any, alone: bool) -> LoopState:
    """Return the loop at a guess of the decoding requests."""
    started = decoding / steps
    tokens = started * curve.prompt_tokens
    room = curve.room(decoding)
    busy = np.minimum(tokens / room, _MOST_BUSY)
    mixed = np.maximum(-np.expm1(-np.minimum(started * curve.chunks, 50.0)), busy)
    fullest = np.maximum(room, curve.first_tokens)
    in_mixed = np.clip(tokens / np.maximum(mixed, 1e-30), curve.first_tokens, fullest)
    added, base = curve.prompts(in_mixed), curve.decode(decoding)
    # A decoding request is held up by the prompts of the others, not by its own, and not by those
    # that it has waited for together with its own: each is met once in a request's life.
    others = (1.0 - 1.0 / np.maximum(batch, 1.0)) * (1.0 - curve.clustering)
    extra = mixed * added * others
    step = base + extra
    own = np.maximum(added if alone else added + base, curve.alone_s)
    queue = own * busy / (2.0 * (1.0 - busy)) * (curve.prompt_tokens / room)
    queue = np.minimum(queue, (batch - 1.0) * curve.first_s * curve.chunks)
    # Half of the steps between two looks for requests, and all of the step under way.
    looks = 0.5 * (curve.poll_steps + 1.0) * np.minimum(1.0, np.maximum(batch - 1.0, 0.0))
    waiting = looks * step + np.maximum(queue, 0.0)
    if np.any(curve.clustering):
        each = curve.full_s * curve.prompt_tokens / curve.full_tokens
        waiting = waiting + curve.clustering * np.maximum(batch - 1.0, 0.0) * each
    waiting = waiting + curve.frontend_s
    ttft = waiting + curve.chunks * own
    return LoopState(decoding, step, ttft, waiting, batch / (ttft + steps * step), extra / step,
                     mixed)
