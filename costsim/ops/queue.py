"""Kernels of a pass, collected first and then priced together, those of one kind in one call.

A pass through a model starts some twenty kernels of a few kinds, and each takes a hundred array
operations to price. For many points that is what the elements cost; for a few points it is what
the calls cost. Kernels of one kind (operator and data types) therefore go through the calibration
as one array with a first axis for them, and of steps that are alike in what a kernel depends on
(`costsim.ops.alike`) only one is priced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from costsim.kernels.operators import variant
from costsim.ops.alike import COVERED, Alike, Fold
from costsim.ops.shape import Call
from costsim.ops.tally import Tally

# Elements of an array up to which kernels are joined (what fits in a cache), four at least.
_LARGE = 1 << 18
# Elements that may be priced besides so that kernels of several parts go in one call: what a call
# costs by itself.
_WORTH_A_CALL = 6000


@dataclass(slots=True)
class _Entry:
    """A kernel: its name in the breakdown, what it is, how often, where it runs, on what part."""

    name: str
    call: Call
    count: Any
    when: Any
    part: str

    def weight(self, fold: Fold | None) -> Any:
        count, when = np.asarray(self.count, float), self.when
        if fold is not None:
            count, when = fold.folded(count), fold.folded(when)
        return count if np.asarray(when).all() else count * when


@dataclass
class Queue:
    """Kernels to be priced.

    Args:
        entries: kernels by name.
        parts: other queues whose sum is one operator of this one.
        replaced: names of operators that are left out, since the engine runs others instead.
        alike: which steps are alike, where all arrays are flat ones of many steps.
        apart: names of operators that are told apart; None: all are.
    """

    entries: list[_Entry] = field(default_factory=list)
    parts: list[tuple[str, Queue]] = field(default_factory=list)
    replaced: frozenset[str] = frozenset()
    alike: Alike | None = None
    apart: frozenset[str] | None = None

    def add(
        self, name: str, call: Call, count: Any = 1.0, when: Any = True, part: str = ""
    ) -> None:
        """Add ``count`` calls of a kernel, where ``when`` holds.

        Args:
            name: in the breakdown.
            call: the kernel.
            count, when: numbers or arrays.
            part: of a step that all of these depend on (`costsim.ops.alike.PARTS`); "": any.
        """
        if name not in self.replaced:
            self.entries.append(_Entry(name, call, count, when, part))

    def add_part(self, name: str, other: Queue) -> None:
        """Add another queue as one operator of this one."""
        self.parts.append((name, other))

    def price(self) -> Tally:
        """Return the sums over all kernels."""
        tally, kinds, apart = Tally(), self._kinds(), self.apart
        if apart is not None:
            # Errors of an operator add up before they are squared.
            seen = Counter(name for some, _ in kinds for name in {e.name for e in some})
            apart = apart | {name for name, times in seen.items() if times > 1}
        step = self.alike.fold("step") if self.alike else None
        inner = tally if step is None else Tally()
        for entries, part in kinds:
            covered = step is not None and part in COVERED
            fold = None if self.alike is None else (
                self.alike.within_step(part) if covered else self.alike.fold(part))
            found, fold = _price_kind(entries, fold, apart)
            (inner if covered else tally).absorb(found, fold.unfolded if fold else list)
        if step is not None:
            tally.absorb(inner, step.unfolded)
        for name, other in self.parts:
            tally.merge(name, other.price())
        return tally

    def price_by_name(self) -> dict[str, Tally]:
        """Return the sums of each operator by itself."""
        alone: dict[str, Queue] = {}
        for entry in self.entries:
            alone.setdefault(entry.name, Queue()).entries.append(entry)
        return {name: queue.price() for name, queue in alone.items()}

    def _kinds(self) -> list[tuple[list[_Entry], str]]:
        """Return the kernels by kind, those of one operator and of the same data types."""
        kinds: dict[Any, list[_Entry]] = {}
        for entry in self.entries:
            call = entry.call
            words = tuple((k, v) for k, v in call.shape.items() if isinstance(v, str | bool | None))
            key = (call.operator, variant(call.operator, call.shape), call.launched, words,
                   call.machine.calibration.engine)
            kinds.setdefault(key, []).append(entry)
        alike = self.alike
        if alike is None:
            return [(some, "") for entries in kinds.values() for some in _in_cache(entries, None)]
        return [(some, part) for entries in kinds.values()
                for group, part in _by_part(entries, alike)
                for some in _in_cache(group, alike.left(part))]


def _by_part(entries: list[_Entry], alike: Alike) -> list[tuple[list[_Entry], str]]:
    """Return kernels of one kind by what they depend on, together where that is little work."""
    parts: dict[str, list[_Entry]] = {}
    for entry in entries:
        parts.setdefault(entry.part, []).append(entry)
    if len(parts) == 1:
        return [(entries, entries[0].part)]
    together = [part for part in parts if part in COVERED]
    most = alike.left("step")
    if sum(len(parts[p]) * (most - alike.left(p)) for p in together) < _WORTH_A_CALL:
        joined = [entry for p in together for entry in parts.pop(p)]
        if joined:
            parts["step"] = joined
    return [(some, part) for part, some in parts.items()]


def _price_kind(
    entries: list[_Entry], fold: Fold | None, apart: Collection[str] | None
) -> tuple[Tally, Fold | None]:
    """Return the sums of kernels of one kind, and what unfolds them."""
    weights = [e.weight(fold) for e in entries]
    if fold is not None:
        weights, fold = _busy(weights, fold)
    first, shapes = entries[0].call, _shapes(entries, fold)
    rank = max(first.machine.hardware.axes, *(np.ndim(v) for values in (
        weights, *(s.values() for s in shapes)) for v in values))
    together = {name: _joined([s[name] for s in shapes], rank) for name in shapes[0]}
    weight, names = _joined(weights, rank, always=True), [e.name for e in entries]
    latency = first.latency_of(together)
    part = Tally()
    part.add(names, latency, weight)
    if apart is not None:
        part.brief(apart)
    return part, fold


def _busy(weights: list[Any], fold: Fold) -> tuple[list[Any], Fold]:
    """Return weights and fold without the rows in which none of the kernels runs."""
    runs: Any = False
    for weight in weights:
        if weight.ndim < 2 or len(weight) == 1:
            return weights, fold
        runs = runs | (weight != 0.0).any(axis=1)
    if runs.all() or not runs.any():
        return weights, fold
    return [weight[runs] for weight in weights], fold.of_rows(runs)


def _shapes(entries: list[_Entry], fold: Fold | None) -> list[Mapping[str, Any]]:
    """Return the kernels' arguments; an array that several have in common stays one."""
    if fold is None:
        return [e.call.whole_shape(e.call.shape) for e in entries]
    folded: dict[int, Any] = {}
    for entry in entries:
        for value in entry.call.shape.values():
            if id(value) not in folded:
                folded[id(value)] = fold.folded(value)
    return [e.call.whole_shape({k: folded[id(v)] for k, v in e.call.shape.items()})
            for e in entries]


def _in_cache(entries: list[_Entry], size: int | None) -> list[list[_Entry]]:
    """Return kernels of one kind in groups that are not too large together.

    Args:
        entries: the kernels.
        size: elements of each; None: as their arrays broadcast.
    """
    if len(entries) == 1:
        return [entries]
    if size is None:
        values = (v for e in entries for v in (*e.call.shape.values(), e.when))
        size = prod(np.broadcast_shapes(*{np.shape(v) for v in values}))
    step = max(1, _LARGE // size) if size <= _LARGE // 4 else 1
    return [entries[i : i + step] for i in range(0, len(entries), step)]


def _joined(values: Sequence[Any], rank: int, always: bool = False) -> Any:
    """Return values on a new first axis, in front of ``rank`` axes; one for all where they agree.

    Args:
        values: numbers, words or arrays.
        rank: axes behind the new one.
        always: even where they agree.
    """
    first = values[0]
    if not always:
        numbers = all(np.ndim(v) == 0 for v in values)
        if all(v is first or (numbers and v == first) for v in values):
            return first
    shapes = {np.shape(v) for v in values}
    shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
    whole = np.empty((len(values), *(1,) * (rank - len(shape)), *shape))
    for i, value in enumerate(values):
        whole[i] = value
    return whole
