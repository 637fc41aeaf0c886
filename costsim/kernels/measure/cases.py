"""Which kernels are measured: shapes by operator, quick and full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

# A CPU works through these in about a second; accelerators get larger limits from their harness.
QUICK_FLOP, FULL_FLOP = 5e9, 2e11


@dataclass(frozen=True)
class Case:
    """One kernel to measure.

    Args:
        operator: as in `costsim.kernels.table.SHAPES`.
        shape: its arguments; data types are names.
    """

    operator: str
    shape: dict[str, Any]

    @property
    def key(self) -> str:
        """Name in the journal."""
        return self.operator + json.dumps(self.shape, sort_keys=True)


@dataclass(frozen=True)
class Grid:
    """Shapes to measure; each operator takes all combinations within ``flop``."""

    rows: Sequence[int]
    weights: Sequence[tuple[int, int]]  # n, k
    heads: Sequence[tuple[int, int, int]]  # heads, kv heads, head size
    batches: Sequence[int]
    lengths: Sequence[int]
    contexts: Sequence[int]
    experts: Sequence[tuple[int, int, int, int]]  # hidden, width, experts, top-k
    tokens: Sequence[int]
    bytes: Sequence[int]
    flop: float
    scores_bytes: float = 2.5e7  # of one attention call


QUICK = Grid(
    rows=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    weights=((512, 512), (1024, 512), (1024, 1024), (3072, 1024), (1024, 3072), (2048, 2048),
             (16384, 1024)),
    heads=((16, 8, 64), (16, 4, 128)), batches=(1, 2, 4, 8, 16), lengths=(32, 64, 128, 256, 512),
    contexts=(64, 128, 256, 512, 1024, 2048), experts=((512, 1024, 8, 2), (512, 512, 32, 4)),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256), bytes=tuple(2**i * 4096 for i in range(15)),
    flop=QUICK_FLOP,
)
FULL = Grid(
    rows=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048),
    weights=((256, 256), (512, 512), (1024, 512), (1024, 1024), (3072, 1024), (1024, 3072),
             (2048, 2048), (6144, 2048), (2048, 6144), (4096, 4096), (11008, 4096),
             (4096, 11008), (32000, 1024)),
    heads=((8, 8, 64), (16, 8, 64), (16, 4, 128), (32, 8, 128), (16, 2, 64)),
    batches=(1, 2, 4, 8, 16, 32), lengths=(32, 64, 128, 256, 512, 1024, 2048),
    contexts=(64, 128, 256, 512, 1024, 2048, 4096),
    experts=((512, 1024, 8, 2), (512, 512, 32, 4), (1024, 1024, 8, 2), (1024, 512, 64, 8),
             (512, 256, 64, 4)),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    bytes=tuple(2**i * 4096 for i in range(17)), flop=FULL_FLOP, scores_bytes=1.5e8,
)


def all_cases(grid: Grid, dtypes: Sequence[str], seed: int = 0) -> list[Case]:
    """Return the cases of a grid for each data type, kernels in turn, shapes in random order.

    The order is random so that a machine that warms up or slows down does not look like a shape
    that does; kernels take turns so that each has its share when the time is up.
    """
    found = [case for dtype in dtypes for case in _of_dtype(grid, dtype)]
    found += [Case("elementwise", {"bytes": size}) for size in grid.bytes]
    return in_turn(found, seed)


def in_turn(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """Return cases shuffled, one of each kernel (operator and data type) after the other."""
    turn: list[tuple[int, Case]] = []
    seen: dict[tuple[str, str], int] = {}
    for i in np.random.default_rng(seed).permutation(len(cases)):
        case = cases[i]
        kernel = (case.operator, str(case.shape.get("dtype", case.shape.get("kv_dtype", ""))))
        turn.append((seen.get(kernel, 0), case))
        seen[kernel] = seen.get(kernel, 0) + 1
    return [case for _, case in sorted(turn, key=lambda pair: pair[0])]


def _of_dtype(grid: Grid, dtype: str) -> Iterator[Case]:
    types = {"dtype": dtype, "activation": dtype}
    for m, (n, k) in product(grid.rows, grid.weights):
        if 2.0 * m * n * k <= grid.flop:
            yield Case("gemm", {"m": m, "n": n, "k": k, **types})
    yield from _attention(grid, dtype)
    for tokens, (hidden, width, experts, top_k) in product(grid.tokens, grid.experts):
        if 6.0 * tokens * top_k * hidden * width <= grid.flop:
            yield Case("moe", {"tokens": tokens, "hidden": hidden, "width": width,
                               "top_k": top_k, "experts": experts, **types})


def _attention(grid: Grid, dtype: str) -> Iterator[Case]:
    for batch, (heads, kv_heads, dim) in product(grid.batches, grid.heads):
        shared = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": dim,
                  "v_head_dim": dim, "kv_dtype": dtype}
        for new in grid.lengths:
            for context in (0, new):
                flop = 4.0 * batch * heads * dim * new * (new + context)
                scores = 4.0 * batch * heads * new * (new + context)
                if flop <= grid.flop and scores <= grid.scores_bytes:
                    yield Case("attention_prefill", {
                        **shared, "new_tokens": new, "context": context, "dtype": dtype})
        for context in grid.contexts:
            if 8.0 * batch * context * kv_heads * dim <= 4 * grid.scores_bytes:
                yield Case("attention_decode", {**shared, "context": context})
