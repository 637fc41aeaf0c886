"""The requests that decode together: counted in closed form, or one by one as the oracle does."""

from __future__ import annotations

import heapq
from typing import Protocol

_SHIFT = 1 << 32


class DecodeBatch(Protocol):
    """Decoding requests of one replica and the KV blocks that their growth takes."""

    @property
    def size(self) -> int:
        """Requests that decode."""

    @property
    def context(self) -> int:
        """Tokens read by the next step: all contexts, each with the token of that step."""

    def join(self, request: int, context: int, steps: int) -> None:
        """Add a request with ``context`` tokens in the cache and ``steps`` tokens to come."""

    def leave(self, request: int) -> int:
        """Take a request out; return its tokens in the cache."""

    def holds(self, request: int) -> bool:
        """Return whether a request decodes."""

    def cached(self, request: int) -> int:
        """Return the tokens that a request has in the cache."""

    def members(self) -> list[int]:
        """Return all requests, in the order in which they joined."""

    def longest(self) -> int:
        """Return the tokens that the request of the longest context reads in the next step."""

    def next_finish(self) -> int:
        """Return the steps until the first request has all its tokens."""

    def need(self, steps: int) -> int:
        """Return the blocks that the next ``steps`` steps take."""

    def needs_block(self, request: int) -> bool:
        """Return whether the next step takes a block for this request."""

    def advance(self, steps: int) -> list[int]:
        """Do steps; return the requests that then have all their tokens, taken out."""


class LeapBatch:
    """Decoding requests counted by phase: the work per leap does not grow with the batch.

    A request that joined at step s with c tokens has c - s + t of them at step t, so it needs a
    block at the steps where (c - s + t) mod block_tokens is 0: counting requests by
    (c - s) mod block_tokens tells the blocks of any number of steps.
    """

    __slots__ = (
        "base", "block_tokens", "context", "finish_at", "finishes", "longs", "phases", "size", "t",
    )  # fmt: skip

    def __init__(self, block_tokens: int, grows: bool = True) -> None:
        self.block_tokens = block_tokens if grows else 0
        self.phases = [0] * max(1, self.block_tokens)
        self.base: dict[int, int] = {}
        self.finish_at: dict[int, int] = {}
        self.finishes: list[int] = []
        self.longs: list[tuple[int, int]] | None = None
        self.size = self.context = self.t = 0

    def join(self, request: int, context: int, steps: int) -> None:
        base = context - self.t
        self.base[request] = base
        finish = self.finish_at[request] = self.t + steps
        heapq.heappush(self.finishes, finish * _SHIFT + request)
        if self.block_tokens:
            self.phases[base % self.block_tokens] += 1
        self.size += 1
        self.context += context + 1
        if self.longs is not None:
            heapq.heappush(self.longs, (-base, request))

    def leave(self, request: int) -> int:
        base = self.base.pop(request)
        del self.finish_at[request]
        if self.block_tokens:
            self.phases[base % self.block_tokens] -= 1
        self.size -= 1
        self.context -= base + self.t + 1
        return base + self.t

    def holds(self, request: int) -> bool:
        return request in self.base

    def cached(self, request: int) -> int:
        return self.base[request] + self.t

    def members(self) -> list[int]:
        return list(self.base)

    def longest(self) -> int:
        if self.longs is None:
            self.longs = [(-base, request) for request, base in self.base.items()]
            heapq.heapify(self.longs)
        if len(self.longs) > 4 * self.size + 64:
            self.longs = [(-base, request) for request, base in self.base.items()]
            heapq.heapify(self.longs)
        longs, base = self.longs, self.base
        while longs and base.get(longs[0][1]) != -longs[0][0]:
            heapq.heappop(longs)
        return self.t + 1 - longs[0][0] if longs else 0

    def next_finish(self) -> int:
        finishes, finish_at = self.finishes, self.finish_at
        while finishes:
            finish, request = divmod(finishes[0], _SHIFT)
            if finish_at.get(request) == finish:
                return finish - self.t
            heapq.heappop(finishes)
        return 0

    def need(self, steps: int) -> int:
        period = self.block_tokens
        if not period:
            return 0
        if steps == 1:
            return self.phases[-self.t % period]
        rounds, rest = divmod(steps, period)
        first, phases = self.t, self.phases
        partial = sum(phases[-(first + j) % period] for j in range(rest))
        return rounds * self.size + partial

    def needs_block(self, request: int) -> bool:
        period = self.block_tokens
        return bool(period) and (self.base[request] + self.t) % period == 0

    def advance(self, steps: int) -> list[int]:
        self.t += steps
        self.context += steps * self.size
        finishes, finish_at, now, done = self.finishes, self.finish_at, self.t, []
        limit = (now + 1) * _SHIFT
        while finishes and finishes[0] < limit:
            finish, request = divmod(heapq.heappop(finishes), _SHIFT)
            if finish_at.get(request) == finish:
                done.append(request)
                self.leave(request)
        return done


class StepBatch:
    """The oracle's batch: every request has its own context, every step visits every request."""

    def __init__(self, block_tokens: int, grows: bool = True) -> None:
        self.block_tokens = block_tokens
        self.grows = grows
        self.contexts: dict[int, int] = {}
        self.left: dict[int, int] = {}

    @property
    def size(self) -> int:
        """Requests that decode."""
        return len(self.contexts)

    @property
    def context(self) -> int:
        """Tokens the next step reads."""
        return sum(context + 1 for context in self.contexts.values())

    def join(self, request: int, context: int, steps: int) -> None:
        self.contexts[request] = context
        self.left[request] = steps

    def leave(self, request: int) -> int:
        del self.left[request]
        return self.contexts.pop(request)

    def holds(self, request: int) -> bool:
        return request in self.contexts

    def cached(self, request: int) -> int:
        return self.contexts[request]

    def members(self) -> list[int]:
        return list(self.contexts)

    def longest(self) -> int:
        return max(self.contexts.values(), default=-1) + 1

    def next_finish(self) -> int:
        return min(self.left.values(), default=0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def need(self, steps: int) -> int:
        if not self.grows:
            return 0
        grown = sum(self._blocks(c + steps) for c in self.contexts.values())
        return grown - sum(self._blocks(c) for c in self.contexts.values())

    def needs_block(self, request: int) -> bool:
        context = self.contexts[request]
        return self.grows and self._blocks(context + 1) > self._blocks(context)

    def advance(self, steps: int) -> list[int]:
        for request in self.contexts:
            self.contexts[request] += steps
            self.left[request] -= steps
        done = sorted(request for request, left in self.left.items() if left == 0)
        for request in done:
            self.leave(request)
        return done
