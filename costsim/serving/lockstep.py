"""Data-parallel ranks that step together, as expert parallelism makes them.

Every rank schedules its own requests, but the experts' all-to-all makes each step last as long as
the slowest rank's; a rank without work takes part with nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from costsim.serving.replica import NEVER, Replica
from costsim.serving.step_cost import Chunk, DecodeLine, StepCost

Load = tuple[int, float, Sequence[Chunk], int]
"""Decoding requests of a rank, their total and longest context, and its prompt chunks."""


class LockstepCost(Protocol):
    """Time of one common step."""

    def step(self, loads: Sequence[Load]) -> float:
        """Return the time of a step of all ranks."""

    def leap(self, loads: Sequence[Load], steps: int) -> np.ndarray:
        """Return the times of decode steps, all contexts growing by one token a step."""


class SlowestRank:
    """A common step lasts as long as the slowest rank's own step.

    Args:
        cost: of one rank.
    """

    def __init__(self, cost: StepCost) -> None:
        self.cost = cost

    def step(self, loads: Sequence[Load]) -> float:
        cost = self.cost
        times = [
            cost.mixed(batch, context, chunks)
            if chunks
            else (cost.decode(batch).seconds(context) if batch else 0.0)
            for batch, context, chunks, _ in loads
        ]
        return max(times)

    def leap(self, loads: Sequence[Load], steps: int) -> np.ndarray:
        at = np.arange(steps)
        times = [
            line_seconds(self.cost.decode(batch), context + batch * at)
            for batch, context, _, _ in loads
            if batch
        ]
        return np.asarray(np.max(times, axis=0))


def line_seconds(line: DecodeLine, context: np.ndarray) -> np.ndarray:
    """Return the times of a decode line at many total contexts."""
    if len(line.knots) == 1:
        return np.full(len(context), line.values[0])
    knots, values = np.asarray(line.knots), np.asarray(line.values)
    slopes = np.asarray(line.slopes)
    at = np.clip(np.searchsorted(knots, context, side="right") - 1, 0, len(slopes) - 1)
    return np.asarray(values[at] + slopes[at] * (context - knots[at]))


class Rank(Replica):
    """One data-parallel rank: a replica whose steps begin and end with those of its group."""

    group: Lockstep

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "group"):
            self.group.stop()

    def together(self) -> list[Replica]:
        return list(self.group.ranks)

    def begin(self, now: float) -> None:
        self.group.begin(now)

    def wake(self, now: float) -> None:
        self.group.wake(now)

    def interrupt(self, now: float, more: int = 0) -> None:
        self.group.interrupt(now, more)

    def _last_start(self, now: float) -> float:
        return self.group.last_start()


class Lockstep:
    """The common clock of data-parallel ranks.

    Args:
        ranks: of the group.
        cost: of their common step.
        leaps: whether to leap over decode steps.
    """

    def __init__(self, ranks: list[Rank], cost: LockstepCost, leaps: bool = True) -> None:
        self.ranks, self.cost, self.leaps = ranks, cost, leaps
        self.start, self.end, self.steps = 0.0, NEVER, 0
        self.ends: Any = np.zeros(0)
        self.waking = False
        for rank in ranks:
            rank.group = self

    def wake(self, now: float) -> None:
        """End the common leap, and begin the next one."""
        self.waking = True
        for rank in self.ranks:
            rank.complete(now)
        self.waking = False
        self.begin(now)

    def begin(self, now: float) -> None:
        """Let every rank form its step, and time them together."""
        if self.waking:
            return
        loads: list[Load] = []
        for rank in self.ranks:
            rank.prepare(now)
        if not any(rank.taken or (rank.decodes and rank.batch.size) for rank in self.ranks):
            for rank in self.ranks:
                if rank.incoming:
                    rank.formed = now
                    rank.prepare(now)
        for rank in self.ranks:
            size = rank.batch.size if rank.decodes else 0
            chunks = [(new, rank.computed[request]) for request, new in rank.taken]
            longest = rank.batch.longest() if size and rank.unequal is not None else 0
            loads.append((size, rank.batch.context if size else 0, chunks, longest))
        self.start = now
        working = [rank for rank, load in zip(self.ranks, loads, strict=True) if load[0]]
        if any(load[2] for load in loads):
            images = max(rank.encoding_s() if rank.image_s else 0.0 for rank in self.ranks)
            self.ends = np.array([self.cost.step(loads) + images])
        elif working:
            most = 1
            held_up = any(rank.preempted or rank.incoming for rank in self.ranks)
            if self.leaps and not held_up:
                most = min(rank.longest_leap() for rank in working)
            self.ends = self._ends(loads, most)
        else:
            self.ends = np.zeros(0)
        self._set(len(self.ends))
        for rank in self.ranks:
            rank.start = now
            if rank.cache is not None:
                rank.cache.shrink(rank.free)

    def _ends(self, loads: list[Load], most: int) -> np.ndarray:
        if most == 1:
            return np.array([self.cost.step(loads)])
        return np.asarray(np.cumsum(self.cost.leap(loads, most)))

    def _set(self, steps: int) -> None:
        self.steps = steps
        self.end = self.start + float(self.ends[steps - 1]) if steps else NEVER
        for rank in self.ranks:
            rank.leap, rank.end = steps, self.end

    def stop(self) -> None:
        """Stop the common clock, as when the ranks fail."""
        self._set(0)

    def last_start(self) -> float:
        """Return when the last step of the leap that ends began."""
        return self.start + (float(self.ends[self.steps - 2]) if self.steps > 1 else 0.0)

    def interrupt(self, now: float, more: int = 0) -> None:
        """Cut the common leap short at the end of the step under way, or ``more`` steps later."""
        if not self.waking and self.steps > 1:
            at = int(np.searchsorted(self.ends[: self.steps], now - self.start)) + 1 + more
            self._set(min(at, self.steps))
