"""Step times from a kernel profile of one model on one accelerator.

The profile (as LLMServingSim's profiler writes it) times each kernel of one layer by itself:
linear layers by tokens, attention by prompt chunk, its cached tokens, decoding requests and their
mean context, the experts by tokens and experts touched, the output head by sequences. A step is
their sum over the layers; nothing is fitted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from costsim.errors import InputError
from costsim.serving.lockstep import Load, line_seconds
from costsim.serving.step_cost import Chunk, DecodeLine


@dataclass(frozen=True)
class Curve:
    """Seconds by a count, linear between the points measured and beyond the last two."""

    at: np.ndarray
    seconds: np.ndarray

    def at_least(self, seconds: float) -> Curve:
        """Return the curve, nowhere below a time."""
        return Curve(self.at, np.maximum(self.seconds, seconds))

    def table(self, most: int) -> np.ndarray:
        """Return the seconds at 0 … ``most``; a count of zero costs nothing."""
        counts = np.arange(most + 1, dtype=float)
        found = np.interp(counts, self.at, self.seconds)
        slope = (self.seconds[-1] - self.seconds[-2]) / (self.at[-1] - self.at[-2])
        found += np.maximum(0.0, counts - self.at[-1]) * slope
        found[0] = 0.0
        return found


@dataclass(frozen=True)
class AttentionTable:
    """Attention of one layer on a grid, multilinear between its points.

    Args:
        chunks, prefixes, batches, contexts: the axes: new prompt tokens, their cached tokens,
            decoding requests, tokens of context of each.
        seconds: of shape (chunks, prefixes, batches, contexts); chunk 0 and batch 0 are among
            the axes.
    """

    chunks: np.ndarray
    prefixes: np.ndarray
    batches: np.ndarray
    contexts: np.ndarray
    seconds: np.ndarray
    _lists: list[list[float]] = field(default_factory=list, repr=False)

    def at(self, chunk: float, prefix: float, batch: float, context: float) -> float:
        """Return the time of a mixed batch, with one chunk and equal contexts."""
        if not self._lists:
            axes = (self.chunks, self.prefixes, self.batches, self.contexts)
            self._lists.extend(axis.tolist() for axis in axes)
        found, lists = self.seconds, self._lists
        for axis, value in zip(lists, (chunk, prefix, batch, context), strict=True):
            low = min(max(bisect_left(axis, value) - 1, 0), len(axis) - 2)
            share = (value - axis[low]) / (axis[low + 1] - axis[low])
            found = found[low] + max(share, 0.0) * (found[low + 1] - found[low])
        return float(found)


@dataclass(frozen=True)
class UnequalTable:
    """How far the longest context of a batch draws the time of attention towards its own.

    Args:
        chunks, batches: the axes: new prompt tokens, decoding requests.
        share: of shape (chunks, batches).
    """

    chunks: np.ndarray
    batches: np.ndarray
    share: np.ndarray

    def at(self, chunk: float, batch: float) -> float:
        """Return the share, linear between the points and constant beyond."""
        column = [np.interp(batch, self.batches, row) for row in self.share]
        return float(np.interp(chunk, self.chunks, column))


NO_SHARE = UnequalTable(np.zeros(1), np.zeros(1), np.zeros((1, 1)))


@dataclass(frozen=True)
class KernelProfile:
    """All kernels of a model on one accelerator.

    Args:
        layers: of the model.
        per_layer: linear and small kernels of a layer by tokens, already with their repeats.
        once: kernels run once a step by tokens (embedding, last norm).
        per_sequence: kernels run once a step by sequences (output head, sampler).
        attention: of a layer.
        unequal: effect of unequal contexts on attention.
        experts: tokens, experts touched and seconds of a layer's experts; empty if dense.
    """

    layers: int
    per_layer: Curve
    once: Curve
    per_sequence: Curve
    attention: AttentionTable
    unequal: UnequalTable = NO_SHARE
    experts: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


class ProfileCost:
    """The time of a step is the sum of its kernels.

    Args:
        profile: the measured kernels.
        most_tokens: of a step.
        graph_sizes: token counts for which the engine has captured graphs; a step of fewer
            tokens runs the next larger one.
        step_s: host time of a step that the accelerator waits for.
        speed: of the accelerator against the one that was profiled.
    """

    def __init__(
        self,
        profile: KernelProfile,
        most_tokens: int,
        graph_sizes: Sequence[int] = (),
        step_s: float = 0.0,
        speed: float = 1.0,
    ) -> None:
        self.profile, self.speed = profile, speed
        tokens = profile.layers * profile.per_layer.table(most_tokens)
        tokens = (tokens + profile.once.table(most_tokens)) / speed + step_s
        self.largest_graph = max(graph_sizes, default=0)
        padded = np.arange(most_tokens + 1)
        sizes = np.array(sorted(size for size in graph_sizes if size <= most_tokens))
        if len(sizes):
            inside = padded[: sizes[-1] + 1]
            padded[: sizes[-1] + 1] = sizes[np.searchsorted(sizes, inside)]
        self.padded = padded
        self.by_tokens = tokens[padded].tolist()
        self.by_sequences = (profile.per_sequence.table(4096) / speed).tolist()
        self.lines: dict[int, DecodeLine] = {}

    def unequal(self, batch: int, new_tokens: int) -> float:
        """Return how far unequal contexts take attention towards that of the longest."""
        return self.profile.unequal.at(new_tokens, batch)

    def linear(self, batch: int, chunks: Sequence[Chunk]) -> float:
        """Return the time of all but attention (and experts)."""
        tokens = batch + sum(new for new, _ in chunks)
        return float(self.by_tokens[tokens] + self.by_sequences[batch + len(chunks)])

    def attention_line(self, batch: int) -> DecodeLine:
        """Return the attention of a decode batch, all layers, over its total context."""
        line = self.lines.get(batch)
        if line is None:
            table, layers = self.profile.attention, self.profile.layers / self.speed
            seconds = [layers * table.at(0, 0, batch, c) for c in table.contexts]
            knots = [batch * float(c) for c in table.contexts]
            line = self.lines[batch] = DecodeLine(knots[1:], seconds[1:])
        return line

    def attention(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        """Return the attention of a mixed step, all layers.

        Several chunks stand for one of all their tokens that attends to as many pairs.
        """
        new = sum(n for n, _ in chunks)
        pairs = sum(n * (cached + 0.5 * n) for n, cached in chunks)
        prefix = max(0.0, pairs / new - 0.5 * new)
        mean = context / batch if batch else 0.0
        table = self.profile.attention
        return self.profile.layers * table.at(new, prefix, batch, mean) / self.speed

    def decode(self, batch: int) -> DecodeLine:
        """Return the time of decode steps of a batch over its total context."""
        line = self.attention_line(batch)
        fixed = self.linear(batch, ())
        return DecodeLine(line.knots, [value + fixed for value in line.values])

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        """Return the time of a step that also reads prompts."""
        return self.linear(batch, chunks) + self.attention(batch, context, chunks)


class ExpertProfileCost:
    """Data-parallel attention and expert-parallel experts, in lock-step.

    Args:
        rank: kernels of one rank but for its experts.
        experts: of a layer.
        top_k: experts of a token.
        ranks: that share the experts.
        exchange_s: seconds of one layer's exchange, by tokens of all ranks where each has as
            many; ranks with unequal tokens take as long as if all had the most, since each link
            carries its own rank's tokens.
    """

    def __init__(
        self,
        rank: ProfileCost,
        experts: int,
        top_k: int,
        ranks: int,
        exchange_s: Curve | None = None,
    ) -> None:
        rows = rank.profile.experts
        if not len(rows):
            raise InputError("kernel profile: has no table of experts")
        self.rank, self.ranks, self.layers = rank, ranks, rank.profile.layers
        most = ranks * (len(rank.by_tokens) - 1)
        seconds = expert_times(rows, most, experts, top_k, ranks)
        self.experts_s = (self.layers * seconds / rank.speed).tolist()
        exchanged = np.zeros(most + 1) if exchange_s is None else exchange_s.table(most)
        self.exchange_s = (self.layers * exchanged / rank.speed).tolist()

    def step(self, loads: Sequence[Load]) -> float:
        """Return the time of a common step: the slowest rank, then all experts together."""
        rank = self.rank
        slowest = 0.0
        for batch, context, chunks, longest in loads:
            seconds = rank.linear(batch, chunks)
            if batch or chunks:
                even = self._attention(batch, context, chunks)
                if batch:
                    share = rank.unequal(batch, sum(new for new, _ in chunks))
                    most = self._attention(batch, batch * longest, chunks)
                    even += share * (most - even)
                seconds += even
            slowest = max(slowest, seconds)
        return slowest + self._together(loads)

    def _attention(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        if chunks:
            return self.rank.attention(batch, context, chunks)
        return self.rank.attention_line(batch).seconds(context)

    def _together(self, loads: Sequence[Load]) -> float:
        """Return the time of experts and exchange.

        Where a captured graph runs, every rank is padded to the one with most tokens.
        """
        tokens = [load[0] + sum(new for new, _ in load[2]) for load in loads]
        widest = int(self.rank.padded[max(tokens)])
        if widest <= self.rank.largest_graph:
            gathered = self.ranks * widest
        else:
            gathered = sum(max(1, count) for count in tokens)
        return float(self.experts_s[gathered] + self.exchange_s[self.ranks * widest])

    def leap(self, loads: Sequence[Load], steps: int) -> np.ndarray:
        """Return the times of decode steps of all ranks."""
        at, rank, times = np.arange(steps), self.rank, []
        for batch, context, _, longest in loads:
            if batch:
                line = rank.attention_line(batch)
                even = line_seconds(line, context + batch * at)
                most = line_seconds(line, batch * (longest + at))
                share = rank.unequal(batch, 0)
                times.append(rank.linear(batch, ()) + even + share * (most - even))
        return np.asarray(np.max(times, axis=0) + self._together(loads))


def touched_experts(tokens: np.ndarray, experts: float, top_k: float) -> np.ndarray:
    """Return the distinct experts that tokens touch, routed evenly: E (1 - (1 - k/E)^tokens)."""
    return np.asarray(experts * -np.expm1(tokens * np.log1p(-top_k / experts)))


def slowest_touched(tokens: np.ndarray, experts: float, top_k: float, ranks: int) -> np.ndarray:
    """Return the distinct experts touched on the rank that has most of them.

    Each of a rank's E/ranks experts is touched with p = 1 - (1 - k/E)^tokens; the mean of the
    largest of ``ranks`` normal counts is their mean and z standard deviations (Blom 1958).
    """
    share = touched_experts(tokens, experts, top_k) / experts
    held = experts / ranks
    z = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 0.0
    return np.minimum(held, held * share + z * np.sqrt(held * share * (1 - share)))


def expert_times(rows: np.ndarray, most: int, experts: int, top_k: int, ranks: int) -> np.ndarray:
    """Return the seconds of one rank's experts of a layer by the tokens of all ranks.

    A rank holds E/ranks experts, but its kernels run over the rows of all gathered tokens, whether
    their experts are its own or not (as LLMServingSim looks its table up). Linear in the experts
    touched, and in the logarithm of tokens.

    Args:
        rows: tokens, experts touched, seconds.
        most: tokens of all ranks, at most.
        experts, top_k, ranks: as in `ExpertProfileCost`.
    """
    tokens = np.arange(1, most + 1, dtype=float)
    touched = slowest_touched(tokens, experts, top_k, ranks)
    counts = [c for c in np.unique(rows[:, 0]) if np.sum(rows[:, 0] == c) >= 2]
    found = np.array([_along_experts(rows[rows[:, 0] == count], touched) for count in counts])
    logs = np.log2(counts)
    place = np.clip(np.log2(tokens), logs[0], logs[-1])
    low = np.clip(np.searchsorted(logs, place, side="right") - 1, 0, len(logs) - 2)
    share = (place - logs[low]) / (logs[low + 1] - logs[low])
    at = np.arange(len(tokens))
    seconds = found[low, at] + share * (found[low + 1, at] - found[low, at])
    seconds *= np.maximum(1.0, tokens / counts[-1])
    return np.concatenate([[0.0], seconds])


def _along_experts(rows: np.ndarray, touched: np.ndarray) -> np.ndarray:
    """Return seconds by experts touched, linear between the rows and beyond."""
    rows = rows[np.argsort(rows[:, 1])]
    at, seconds = rows[:, 1], rows[:, 2]
    low = np.clip(np.searchsorted(at, touched, side="right") - 1, 0, len(at) - 2)
    slope = (seconds[low + 1] - seconds[low]) / (at[low + 1] - at[low])
    return np.asarray(seconds[low] + slope * (touched - at[low]))
