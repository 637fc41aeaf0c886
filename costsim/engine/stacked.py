"""Many steps of one deployment in few vectorised calls, steps that are equal priced once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.speculation import verify_width
from costsim.engine.step import StepTime, priced, step_time
from costsim.ops.shape import replica_tokens

# Points up to which unlike steps of several kinds of hardware are priced together.
_LITTLE = 4096
_LAYOUT = ("tp", "pp", "ep", "dp", "cp")
_TOKENS = ("prefill_requests", "prefill_tokens", "prefill_context", "decode_requests",
           "decode_context")


def stacked_steps(
    deployment: Deployment, detailed: bool = True, **arguments: Sequence[Any]
) -> list[StepTime]:
    """Return several steps of one deployment in one vectorised call.

    Args:
        deployment: fields of its layout and hardware may be arrays.
        detailed: whether the breakdown by operator is needed.
        arguments: of `step_time`, each with one value (number or array) for every step.
    """
    if deployment.hardware.axes:
        return _on_grid(deployment, arguments)
    count = len(next(iter(arguments.values())))
    layout = [getattr(deployment.layout, name) for name in _LAYOUT]
    values = [arguments.get(name, [0.0] * count) for name in _TOKENS]
    shapes = [np.broadcast(*layout, *(given[i] for given in values)).shape for i in range(count)]
    columns = [_flat([v] * count, shapes) for v in layout]
    columns += [_flat(given, shapes) for given in values]
    ends = list(accumulate((prod(shape) for shape in shapes), initial=0))
    step = _flat_steps(deployment, columns, ends[-1], detailed)
    return [_taken(step, _picker(ends[i], shapes[i])) for i in range(count)]


def _flat(values: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Any:
    """Return the values of all steps one after the other; one number where all have the same."""
    first = values[0]
    if np.ndim(first) == 0 and all(v is first or (np.ndim(v) == 0 and v == first) for v in values):
        return first
    column = np.empty(sum(map(prod, shapes)))
    start = 0
    for value, shape in zip(values, shapes, strict=True):
        end = start + prod(shape)
        column[start:end].reshape(shape)[...] = value
        start = end
    return column


def _flat_steps(
    deployment: Deployment, columns: Sequence[Any], size: int, detailed: bool
) -> StepTime:
    """Return steps whose layouts and tokens are flat arrays of one size, or numbers."""
    layout = dict(zip(_LAYOUT, columns, strict=False))
    settings = deployment.settings
    prompts, chunk, cached, decodes, context = columns[len(_LAYOUT):]
    tokens = replica_tokens(prompts, chunk, cached, decodes, context, layout["dp"],
                            verify_width(settings), settings.context_spread)
    return priced(deployment.with_changes(
        layout=replace(deployment.layout, **layout)), tokens, size, detailed)


def _picker(start: int, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return what takes one step's values, in its shape, from those of all."""
    end = start + prod(shape)

    def pick(value: Any) -> Any:
        array = np.asarray(value)
        if array.size == 1:
            return array.reshape(())[()]
        return array[start:end].reshape(shape)[()]

    return pick


@dataclass(frozen=True)
class _Taken(Mapping[str, Any]):
    """Values of which one step's are taken when they are asked for."""

    values_of_all: Mapping[str, Any]
    pick: Callable[[Any], Any]

    def __getitem__(self, name: str) -> Any:
        return self.pick(self.values_of_all[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of_all)

    def __len__(self) -> int:
        return len(self.values_of_all)


def _taken(step: StepTime, pick: Callable[[Any], Any]) -> StepTime:
    return StepTime(
        pick(step.seconds), _Taken(step.by_operator, pick), _Taken(step.by_resource, pick),
        pick(step.log_error), pick(step.flop), pick(step.memory_bytes), pick(step.network_bytes),
    )


def _on_grid(deployment: Deployment, arguments: Mapping[str, Sequence[Any]]) -> list[StepTime]:
    """Return the steps on a first axis, where fields of the hardware are arrays too."""
    count = len(next(iter(arguments.values())))
    rank = max(_rank(deployment), *(np.ndim(v) for given in arguments.values() for v in given))
    found: dict[int, StepTime] = {}
    for some in _split(count, arguments):
        stacked = {n: _stack([given[i] for i in some], rank) for n, given in arguments.items()}
        step = step_time(deployment, **stacked)
        for place, i in enumerate(some):
            found[i] = _taken(step, _layer(place, rank))
    return [found[i] for i in range(count)]


def _layer(index: int, rank: int) -> Callable[[Any], Any]:
    """Return what takes one of stacked steps; what is the same in all has no axis for them."""

    def pick(value: Any) -> Any:
        array = np.asarray(value)
        return array[min(index, len(array) - 1)] if array.ndim > rank else value

    return pick


def _split(count: int, arguments: Mapping[str, Sequence[Any]]) -> list[list[int]]:
    """Return which steps are priced together: all where that is little work, else like ones.

    Linear layers see the tokens of prompts and decodes, whatever their contexts: steps are alike
    whose tokens vary along the same axes.
    """
    shapes = np.broadcast_shapes(*(np.shape(v) for given in arguments.values() for v in given))
    if prod(shapes) <= _LITTLE:
        return [list(range(count))]
    alike: dict[tuple[int, ...], list[int]] = {}
    for i in range(count):
        one = {name: given[i] for name, given in arguments.items() if "context" not in name}
        if not np.any(one.get("prefill_requests", 0.0)):
            one = {"decode_requests": one["decode_requests"]}
        shape = np.broadcast_shapes(*(np.shape(v) for v in one.values()))
        alike.setdefault(shape, []).append(i)
    return list(alike.values())


def _rank(deployment: Deployment) -> int:
    """Return the largest number of axes among the fields of layout and hardware."""
    return max(deployment.hardware.axes, *(np.ndim(v) for v in vars(deployment.layout).values()))


def _stack(values: Sequence[Any], rank: int) -> Any:
    """Return values on a new first axis, in front of ``rank`` axes."""
    if all(v is values[0] for v in values):
        return values[0]
    arrays = np.broadcast_arrays(*(np.asarray(v, float) for v in values))
    whole = np.stack(arrays)
    return whole.reshape(whole.shape[0], *(1,) * (rank + 1 - whole.ndim), *whole.shape[1:])
