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

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from costsim.engine.benchmark import Waves

# Rounds of the search at most, and how near to the batch it comes.
_MOST_ROUNDS, _TOLERANCE = 12, 1e-13
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
        frontend_s: outside the engine, in front of the first token.
        tokenize_s: time of a prompt's tokens in the front end, one prompt after another.
        poll_steps: steps between two looks for new requests.
        ahead_steps: steps that are scheduled before the one under way ends.
        whole_prompts: prompts are not cut to fill a step.
        hold_steps, hold_tokens: steps that prompts are held back at most, until a step has so many
            tokens.
        rank_hold_steps, ranks: steps that they are held back at most until every rank has one.
        waves: how a benchmark's prompts arrive.
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
    frontend_s: float = 0.0
    tokenize_s: Any = 0.0
    poll_steps: float = 1.0
    ahead_steps: float = 0.0
    whole_prompts: bool = False
    hold_steps: float = 0.0
    hold_tokens: Any = 0.0
    rank_hold_steps: float = 0.0
    ranks: Any = 1.0
    waves: Waves = field(default_factory=Waves)

    def decode(self, requests: Any) -> Any:
        """Return the decode step at a number of requests, linear between the knots."""
        knots, result = self.requests, self.decode_s[0]
        for i, slope in enumerate(self._decode_slopes, 1):
            beyond = np.minimum(requests, knots[i]) if i < len(knots) - 1 else requests
            result = result + slope * np.maximum(beyond - knots[i - 1], 0.0)
        return result

    def room(self, requests: Any) -> Any:
        """Return the prompt tokens that a step holds beside decoding requests."""
        room = np.maximum(self.budget_tokens - self.decode_tokens * requests,
                          0.25 * self.budget_tokens)
        if not self.whole_prompts:
            return room
        each = self.ranks * self.prompt_tokens
        return np.where(room >= each, np.floor(room / each + 1e-9) * each, room)

    def held(self, arrivals: Any, decoding: Any) -> tuple[Any, Any]:
        """Return for how many steps the first prompt of a step is held back, and an average one.

        Args:
            arrivals: prompts per step.
            decoding: requests that decode.
        """
        if not self.hold_steps and not self.rank_hold_steps:
            return 0.0, 0.0
        more = (self.hold_tokens - self.decode_tokens * decoding) / self.prompt_tokens - 1.0
        steps = np.minimum(self.hold_steps, np.maximum(more, 0.0) / arrivals)
        # Prompts follow completions, which fall on any rank: so many until all have one.
        others = self.ranks * (np.log(self.ranks) + 0.5772) - 0.5
        others = np.where((self.ranks > 1) & (decoding >= self.ranks), others, 0.0)
        steps = np.maximum(steps, np.minimum(self.rank_hold_steps, others / arrivals))
        gathered = arrivals * steps
        mean = steps * (1.0 + 0.5 * gathered) / (1.0 + gathered)
        # What is more than a step holds waits for another round.
        fit = self.room(decoding) / self.prompt_tokens
        return steps, mean * (2.0 - np.minimum(fit / (1.0 + gathered), 1.0))

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
        waited_steps: steps of the time to first token that are spent waiting for a look or for
            other prompts.
    """

    decoding: Any
    step_s: Any
    ttft_s: Any
    waiting_s: Any
    requests_per_s: Any
    prompt_share: Any
    mixed_share: Any
    waited_steps: Any


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
    guess, state = _solve(curve, b, n, most, prefill_first)
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


def _solve(
    curve: StepCurve, batch: Any, steps: Any, most: Any, prefill_first: bool
) -> tuple[Any, LoopState]:
    """Return the decoding requests at which the loop holds the batch, and its state there.

    Regula falsi, the end that stays twice scaled down by Anderson and Björck's rule (BIT 13, 1973):
    three to six rounds, a dozen where prompts nearly fill the steps. Where whole prompts make the
    curve jump past the batch there is no such number, and the last guess is one side of the jump.
    """
    low, high = np.zeros_like(most), most
    below, above = -batch, _surplus(_at(curve, most, batch, steps, prefill_first), batch, steps)
    open_ended, last = above <= 0, None
    for _ in range(_MOST_ROUNDS):
        share = np.where(above > 0, below / np.minimum(below - above, -1e-30), 1.0)
        guess = low + (high - low) * share
        state = _at(curve, guess, batch, steps, prefill_first)
        value = _surplus(state, batch, steps)
        if np.all(open_ended | (np.abs(value) <= _TOLERANCE * batch)):
            break
        over = value > 0
        before = np.where(over, above, below)
        scale = 1.0 - value / np.where(before == 0.0, 1.0, before)
        scale = np.where(scale > 0, scale, 0.5)
        again = 1.0 if last is None else np.where(over == last, scale, 1.0)
        low, high = np.where(over, low, guess), np.where(over, guess, high)
        below, above = np.where(over, below * again, value), np.where(over, value, above * again)
        last = over
    return guess, state


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
    waves, prompt = curve.waves, curve.prompt_tokens
    arrivals = np.minimum(decoding / steps * waves.density, decoding)
    tokens = arrivals * prompt
    room = curve.room(decoding)
    busy = np.minimum(tokens / room, _MOST_BUSY)
    looks = np.maximum(curve.poll_steps, 1.0)
    mixed = np.maximum(-np.expm1(-np.minimum(arrivals * looks * curve.chunks, 50.0)) / looks, busy)
    held, holding = curve.held(arrivals, decoding)
    if np.any(held):
        mixed = np.maximum(np.minimum(mixed, arrivals / (1.0 + arrivals * held)), busy)
    fullest = np.maximum(room, curve.first_tokens)
    in_mixed = np.clip(tokens / np.maximum(mixed, 1e-30), curve.first_tokens, fullest)
    added, base = curve.prompts(in_mixed), curve.decode(decoding)
    # A decoding request is held up by the prompts of the others, not by its own and those that
    # take the same steps. Half of those of the first round are met before its first token, and
    # half of the last round's have no successors.
    same = np.clip(in_mixed / prompt, 1.0, batch)
    if alone:
        same = np.clip(0.5 * (arrivals * looks + same), same, batch)
    later = 1.0 - waves.first
    met = (1.0 - 0.5 * waves.first - later * same / batch
           - 0.5 * waves.first * np.clip(room / prompt, 1.0, batch) / batch)
    extra = decoding / steps * prompt / in_mixed * added * np.maximum(met, 0.0)
    step = base + extra
    own = np.maximum(added if alone else added + base, curve.alone_s)
    full = np.maximum(curve.prompts(fullest) + (0.0 if alone else base), own)
    queue = own * busy / (2.0 * (1.0 - busy)) * (prompt / room)
    queue = np.minimum(queue, (batch - 1.0) * curve.first_s * curve.chunks)
    queue = np.minimum(queue, waves.scatter * full * (prompt / room))
    if alone:
        queue = queue + 0.5 * np.maximum(arrivals * looks * prompt / room - 1.0, 0.0) * full
    # Half of the steps between two looks for requests, all of the step under way, and those that
    # are scheduled already.
    waited = 0.5 * (looks + 1.0) + curve.ahead_steps
    waited = waited * np.minimum(1.0, np.maximum(batch - 1.0, 0.0))
    waited = later * (waited + holding)
    # Prompts come where others come: the steps under way have prompts of others in them.
    under_way = base + np.minimum(mixed, 1.0) * added * (1.0 - same / np.maximum(batch, 1.0))
    burst = waves.first * _start(curve, decoding, batch, alone) if np.any(waves.first) else 0.0
    waiting = (waited * under_way + later * (np.maximum(queue, 0.0) + curve.tokenize_s)
               + burst + curve.frontend_s)
    ttft = waiting + later * curve.chunks * own
    return LoopState(decoding, step, ttft, waiting, batch / (ttft + steps * step), extra / step,
                     mixed, waited)


def _start(curve: StepCurve, decoding: Any, batch: Any, alone: bool) -> Any:
    """Return the mean time to first token of prompts that all arrive at once.

    Full steps one after another, or the front end where it is the slower.
    """
    room = np.maximum(curve.room(0.5 * decoding), curve.first_tokens)
    each = np.minimum(room / curve.prompt_tokens, batch)
    one = curve.prompts(np.maximum(each * curve.prompt_tokens, curve.first_tokens))
    one = np.maximum(one + (0.0 if alone else curve.decode(0.5 * decoding)), curve.alone_s)
    steps = 0.5 * (batch / each + np.maximum(1.0, 1.0 / each))
    return np.maximum(steps * one, curve.tokenize_s * 0.5 * (batch + 1.0) + one)
