"""Kernels of a pass, collected first and then priced together, those of one kind in one call.

A pass through a model starts some twenty kernels of a few kinds, and each takes a hundred array
operations to price. For a grid of points that is what the elements cost; for a few points it is
what the calls cost. Kernels of one kind (operator and data types) therefore go through the
calibration as one array with a first axis for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from costsim.kernels.operators import variant
from costsim.ops.fold import Fold
from costsim.ops.shape import Call
from costsim.ops.tally import Tally

# Elements of an array up to which kernels are joined (what fits in a cache), four at least.
_LARGE = 1 << 18


@dataclass(frozen=True)
class _Entry:
    """One kernel: its name in the breakdown, what it is, how often, and where it runs at all."""

    name: str
    call: Call
    count: Any
    when: Any

    @property
    def weight(self) -> Any:
        count = np.asarray(self.count, float)
        return count if np.all(self.when) else count * self.when


@dataclass
class Queue:
    """Kernels to be priced.

    Args:
        entries: kernels by name.
        parts: other queues whose sum is one operator of this one.
        replaced: names of operators that are left out, since the engine runs others instead.
    """

    entries: list[_Entry] = field(default_factory=list)
    parts: list[tuple[str, Queue]] = field(default_factory=list)
    replaced: frozenset[str] = frozenset()

    def add(self, name: str, call: Call, count: Any = 1.0, when: Any = True) -> None:
        """Add ``count`` calls of a kernel, where ``when`` holds."""
        if name not in self.replaced:
            self.entries.append(_Entry(name, call, count, when))

    def add_part(self, name: str, other: Queue) -> None:
        """Add another queue as one operator of this one."""
        self.parts.append((name, other))

    def price(self) -> Tally:
        """Return the sums over all kernels."""
        tally = Tally()
        for entries in self._kinds():
            self._price_kind(tally, entries)
        for name, other in self.parts:
            tally.merge(name, other.price())
        return tally

    def price_by_name(self) -> dict[str, Tally]:
        """Return the sums of each operator by itself."""
        alone: dict[str, Queue] = {}
        for entry in self.entries:
            alone.setdefault(entry.name, Queue()).entries.append(entry)
        return {name: queue.price() for name, queue in alone.items()}

    def _kinds(self) -> list[list[_Entry]]:
        """Return the kernels by kind, those of one operator and of the same data types."""
        kinds: dict[Any, list[_Entry]] = {}
        for entry in self.entries:
            call = entry.call
            words = tuple((k, v) for k, v in call.shape.items() if isinstance(v, str | bool | None))
            key = (call.operator, variant(call.operator, call.shape), call.launched, words,
                   call.machine.calibration.engine)
            kinds.setdefault(key, []).append(entry)
        return [some for alike in kinds.values() for some in _in_cache(alike)]

    @staticmethod
    def _price_kind(tally: Tally, entries: list[_Entry]) -> None:
        shapes, first = [e.call.shape for e in entries], entries[0].call
        weights = [e.weight for e in entries]
        rank = max(first.machine.axes, *(np.ndim(v) for values in (
            weights, *(s.values() for s in shapes)) for v in values))
        together = {name: _joined([s[name] for s in shapes], rank) for name in first.shape}
        weight, names = _joined(weights, rank, always=True), [e.name for e in entries]
        fold = None if first.machine.axes else Fold.of([weight, *together.values()], rank)
        if fold is None:
            tally.add(names, replace(first, shape=together).latency, weight)
            return
        folded = replace(first, shape={k: fold.folded(v) for k, v in together.items()})
        part = Tally()
        part.add(names, folded.latency, fold.folded(weight))
        tally.absorb(part, fold.unfolded)


def _in_cache(entries: list[_Entry]) -> list[list[_Entry]]:
    """Return kernels of one kind in groups that are not too large together."""
    if len(entries) == 1:
        return [entries]
    values = (v for e in entries for v in (*e.call.shape.values(), e.when))
    size = int(np.prod(np.broadcast_shapes(*{np.shape(v) for v in values})))
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
    whole = np.stack(np.broadcast_arrays(*(np.asarray(v, float) for v in values)))
    return whole.reshape(whole.shape[0], *(1,) * (rank + 1 - whole.ndim), *whole.shape[1:])
