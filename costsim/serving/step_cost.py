"""What one engine step costs, in a form whose sum over many steps is closed.

Between two state changes the decode batch is fixed and every context grows by one token a step, so
the total context grows by the batch size a step. A step time that is piecewise linear in the total
context therefore has a sum over k steps that is a sum of arithmetic series, one per segment.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from costsim.errors import InputError

Chunk = tuple[int, int]
"""New tokens of a prompt in this step, and its tokens already in the cache."""


class DecodeLine:
    """Time of a decode step of one batch size, piecewise linear in the total context.

    Args:
        knots: total contexts (tokens over the whole batch), ascending.
        seconds: step time at each knot; linear between knots and beyond the outermost ones.
    """

    __slots__ = ("knots", "slopes", "values")

    def __init__(self, knots: Sequence[float], seconds: Sequence[float]) -> None:
        if len(knots) != len(seconds) or not knots:
            raise InputError("decode line: as many times as knots are needed, at least one")
        self.knots = [float(k) for k in knots]
        self.values = [float(s) for s in seconds]
        pairs = zip(self.knots, self.knots[1:], self.values, self.values[1:], strict=False)
        self.slopes = [(v1 - v0) / (k1 - k0) for k0, k1, v0, v1 in pairs] or [0.0]

    def seconds(self, context: float) -> float:
        """Return the time of one step at a total context (tokens)."""
        knots = self.knots
        if len(knots) == 1:
            return self.values[0]
        at = bisect_right(knots, context) - 1
        at = 0 if at < 0 else min(at, len(self.slopes) - 1)
        return self.values[at] + self.slopes[at] * (context - knots[at])

    def total(self, context: float, growth: int, steps: int) -> float:
        """Return the time of ``steps`` steps, the context growing by ``growth`` after each."""
        if steps == 1 or len(self.knots) == 1:
            return steps * self.seconds(context)
        knots, last, spent = self.knots, len(self.slopes) - 1, 0.0
        at = min(max(bisect_right(knots, context) - 1, 0), last)
        while steps > 0:
            n, first, slope = steps, self._at(at, context), self.slopes[at]
            if at < last and growth > 0:
                n = min(steps, max(1, math.ceil((knots[at + 1] - context) / growth)))
            spent += n * first + slope * growth * (n * (n - 1) / 2)
            context += n * growth
            steps -= n
            at = min(max(bisect_right(knots, context) - 1, 0), last)
        return spent

    def steps_until(
        self, context: float, growth: int, most: int, span_s: float
    ) -> tuple[int, float]:
        """Return the fewest steps (1 to ``most``) that last ``span_s``, and their time."""
        low, high = 1, most
        total = self.total
        mean = self.seconds(context)
        if mean > 0.0 and span_s < mean * most:
            guess = min(most, max(1, math.ceil(span_s / mean)))
            if total(context, growth, guess) >= span_s:
                high = guess
            else:
                low = guess + 1
            under = max(low, int(0.9 * guess))
            if under < high and total(context, growth, under) < span_s:
                low = under + 1
        while low < high:
            middle = (low + high) // 2
            if total(context, growth, middle) >= span_s:
                high = middle
            else:
                low = middle + 1
        return low, total(context, growth, low)

    def _at(self, segment: int, context: float) -> float:
        return self.values[segment] + self.slopes[segment] * (context - self.knots[segment])


class UnequalLine(DecodeLine):
    """A decode line for contexts of unequal length.

    The step takes ``seconds(total) + share * (seconds(batch * longest) - seconds(total))``: both
    totals grow by the batch size a step, so that the sum over steps stays closed.

    Args:
        line: for equal contexts.
        share: of the way to a batch in which all contexts are as long as the longest.
        further: batch size times the longest context, less the total context (tokens).
    """

    __slots__ = ("further", "line", "share")

    def __init__(self, line: DecodeLine, share: float, further: float) -> None:
        self.line, self.share, self.further = line, share, further

    def seconds(self, context: float) -> float:
        even = self.line.seconds(context)
        return even + self.share * (self.line.seconds(context + self.further) - even)

    def total(self, context: float, growth: int, steps: int) -> float:
        even = self.line.total(context, growth, steps)
        longest = self.line.total(context + self.further, growth, steps)
        return even + self.share * (longest - even)


class StepCost(Protocol):
    """Time of one step of an engine, for the simulator.

    A cost may also have ``unequal(batch, new_tokens)``: the share in `UnequalLine` for a batch
    whose contexts differ, in steps with that many new prompt tokens.
    """

    def decode(self, batch: int) -> DecodeLine:
        """Return the time of steps in which ``batch`` requests decode and no prompt is read."""

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        """Return the time of a step that also reads prompts.

        Args:
            batch: decoding requests.
            context: their total context in tokens.
            chunks: new and cached tokens of each prompt chunk.
        """


@dataclass(frozen=True)
class AffineCost:
    """Step time affine in requests, context and prompt tokens; constant by default.

    Args:
        step_s: fixed time of a step.
        request_s: time per decoding request.
        context_s: time per token of total decode context.
        prompt_s: time per new prompt token.
        prompt_context_s: time per pair of a new prompt token and a token it attends to.
        prompt_step_s: fixed time of a step with prompts only; ``step_s`` where None.
    """

    step_s: float = 0.0
    request_s: float = 0.0
    context_s: float = 0.0
    prompt_s: float = 0.0
    prompt_context_s: float = 0.0
    prompt_step_s: float | None = None
    _lines: dict[int, DecodeLine] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        times = (self.step_s, self.request_s, self.context_s, self.prompt_s, self.prompt_context_s)
        if not all(math.isfinite(t) and t >= 0 for t in times) or not sum(times[:3]) > 0:
            raise InputError("step cost: times must be finite, not negative, and a step above zero")

    def decode(self, batch: int) -> DecodeLine:
        line = self._lines.get(batch)
        if line is None:
            fixed = self.step_s + batch * self.request_s
            points = ([0.0], [fixed])
            if self.context_s:
                points = ([0.0, 1e6], [fixed, fixed + 1e6 * self.context_s])
            line = self._lines[batch] = DecodeLine(*points)
        return line

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        fixed = self.step_s
        if not batch and self.prompt_step_s is not None:
            fixed = self.prompt_step_s
        seconds = fixed + batch * self.request_s + self.context_s * context
        for new, cached in chunks:
            pairs = new * (cached + 0.5 * (new + 1))
            seconds += self.prompt_s * new + self.prompt_context_s * pairs
        return seconds
