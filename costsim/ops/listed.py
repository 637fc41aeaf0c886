"""Operators that an engine's preset lists as data: GEMMs of other widths, unfused small kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Types

# Where a listed operator runs: in every layer, in layers with softmax attention, in those whose
# queries and keys are normed, in dense or MoE feed-forward parts, or once a pass.
PLACES = ("layer", "attention", "qk_norm", "dense", "moe", "ends")
# What sizes may be written in, and what they count.
SIZES: dict[str, str] = {
    "tokens": "tokens of the pass", "requests": "requests of the pass",
    "cached": "cached tokens of all requests, the new ones included",
    "hidden": "model width", "heads": "query heads", "kv_heads": "KV heads",
    "head_dim": "head size of queries and keys", "v_head_dim": "head size of values",
    "width": "inner width of a dense feed-forward part", "experts": "routed experts",
    "vocabulary": "tokens of the vocabulary", "head_rows": "rows of the LM head",
    "element": "bytes of an activation", "kv_element": "bytes of a cached element",
}


@dataclass(frozen=True)
class ListedOperator:
    """One operator of a list.

    Args:
        name: in the breakdown of a step.
        where: one of `PLACES`.
        operator: ``gemm`` or ``elementwise``.
        shape: argument → expression in `SIZES`, such as ``("n", "kv_heads*head_dim")``.
        kind: which elementwise kernel.
        calls: times it runs in one layer (or pass).
    """

    name: str
    where: str
    operator: str
    shape: tuple[tuple[str, str], ...]
    kind: str = ""
    calls: float = 1.0


def terms(expression: str) -> list[list[str]]:
    """Return the factors of each summand: ``"2*a*b + c"`` is ``[["2", "a", "b"], ["c"]]``."""
    return [[factor.strip() for factor in summand.split("*")] for summand in expression.split("+")]


def value(expression: str, sizes: Mapping[str, Any]) -> Any:
    """Return an expression's value.

    Args:
        expression: sums of products of numbers and names.
        sizes: of the names; arrays broadcast.
    """
    total: Any = 0.0
    for factors in terms(expression):
        product: Any = 1.0
        for factor in factors:
            product = product * (sizes[factor] if factor in sizes else float(factor))
        total = total + product
    return total


def unknown_factors(expression: str) -> list[str]:
    """Return the factors of an expression that are neither numbers nor names of `SIZES`."""
    factors = [factor for summand in terms(expression) for factor in summand]
    return [factor for factor in factors if factor not in SIZES and not _number(factor)]


def _number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def add_listed(
    queue: Queue, machine: Machine, operators: Iterable[ListedOperator], places: Iterable[str],
    sizes: Mapping[str, Any], types: Types, count: Any,
) -> None:
    """Add ``count`` times those operators of a list that run at some places.

    Args:
        queue, machine: where to add, on what.
        operators: the list.
        places: of `PLACES`.
        sizes: of the names in `SIZES`.
        types: data types of GEMMs.
        count: layers (or passes).
    """
    here = set(places)
    for each in operators:
        if each.where not in here:
            continue
        shape = {name: value(expression, sizes) for name, expression in each.shape}
        if each.operator == "gemm":
            call = machine("gemm", dtype=types.weight, activation=types.activation, **shape)
            some = np.asarray(shape["m"]) > 0
        else:
            call = machine("elementwise", kind=each.kind, **shape)
            some = np.asarray(shape["bytes"]) > 0
        queue.add(each.name, call, count * each.calls, some, _part(each))


def _part(operator: ListedOperator) -> str:
    """Return what part of a step an operator depends on (`costsim.ops.alike.PARTS`)."""
    used = {factor for _, expression in operator.shape for summand in terms(expression)
            for factor in summand}
    if used & {"requests", "cached"} or {"tokens", "head_rows"} <= used:
        return "step"
    return "rows" if "head_rows" in used else "tokens"
