"""The common step of data-parallel ranks that share their experts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from costsim.serving.lockstep import Load, line_seconds
from costsim.serving.step_cost import StepCost


class ExpertRanks:
    """Ranks wait for the slowest one's attention and exchange; experts see the tokens of all.

    The exchange is the slowest rank's because its link carries all of its tokens. Time of a rank is
    tabulated with all ranks alike, so that their experts' part is taken out and that of the real
    total put in.

    Args:
        cost: of one rank, where all ranks do the same.
        ranks: how many there are.
        tokens, seconds: time of the experts' kernels over the tokens of all ranks.
        width: tokens that a decoding request verifies in a step of the engine.
        yields: tokens that such a step gives; a simulated step is one token.
    """

    def __init__(
        self, cost: StepCost, ranks: int, tokens: Sequence[float], seconds: Sequence[float],
        width: float = 1.0, yields: float = 1.0,
    ) -> None:
        self.cost, self.ranks, self.width, self.yields = cost, ranks, width, yields
        self.tokens, self.seconds = list(tokens), list(seconds)

    def _experts(self, tokens: float) -> float:
        if tokens <= 0:
            return 0.0
        at, known = self.tokens, self.seconds
        if tokens <= at[0]:
            return known[0]
        i = min(bisect_right(at, tokens), len(at) - 1) - 1
        return known[i] + (tokens - at[i]) / (at[i + 1] - at[i]) * (known[i + 1] - known[i])

    def experts_s(self, decodes: float, new: float) -> float:
        """Return the time of the experts for decoding requests and new prompt tokens of all."""
        verified = decodes * self.width
        alone = self._experts(verified) / self.yields
        return alone + (self._experts(verified + new) - self._experts(verified) if new else 0.0)

    def _local(self, load: Load) -> float:
        """Return what a rank does besides the experts."""
        batch, context, chunks, _ = load
        if chunks:
            seconds = self.cost.mixed(batch, context, chunks)
        else:
            seconds = self.cost.decode(batch).seconds(context) if batch else 0.0
        return seconds - self._own(load)

    def _own(self, load: Load) -> float:
        new = sum(tokens for tokens, _ in load[2])
        return self.experts_s(self.ranks * load[0], self.ranks * new)

    def _all(self, loads: Sequence[Load]) -> float:
        new = sum(tokens for load in loads for tokens, _ in load[2])
        return self.experts_s(sum(load[0] for load in loads), new)

    def step(self, loads: Sequence[Load]) -> float:
        """Return the time of a step of all ranks."""
        return max(self._local(load) for load in loads) + self._all(loads)

    def leap(self, loads: Sequence[Load], steps: int) -> np.ndarray:
        """Return the times of decode steps, all contexts growing by one token a step."""
        at = np.arange(steps)
        locals_ = [
            line_seconds(self.cost.decode(load[0]), load[1] + load[0] * at) - self._own(load)
            for load in loads if load[0]
        ]  # fmt: skip
        return np.asarray(np.max(locals_, axis=0)) + self._all(loads)
