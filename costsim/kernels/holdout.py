"""Held-out blocks: whole ranges of a shape that the fit has not seen, against two rivals.

The rivals are plain interpolation of the table (linear in log-log along the held-out column among
rows that agree in all others, extended by the last slope; the nearest row where none agree) and
the pure roofline with generic efficiencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.efficiency import COLLECTIVES, Efficiency
from costsim.kernels.surface_fit import (
    FEWEST,
    Kernel,
    features_of,
    fit_surface,
    log_errors,
    predict,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """A range of a shape column, both ends included."""

    column: str
    low: float
    high: float

    @property
    def name(self) -> str:
        """The range in words."""
        if np.isinf(self.high):
            return f"{self.column} >= {self.low:g}"
        return f"{self.column} {self.low:g} to {self.high:g}"

    def rows(self, kernel: Kernel) -> NDArray[np.bool_]:
        """Return which rows of a kernel lie in the block."""
        value = kernel.shape[self.column]
        return np.asarray((value >= self.low) & (value <= self.high))


_COLLECTIVE = (Block("message_bytes", 2**18, 2**22), Block("message_bytes", 2**27, np.inf))
BLOCKS: dict[str, tuple[Block, ...]] = {
    "gemm": (Block("m", 100, 400), Block("m", 4096, np.inf)),
    "attention_prefill": (Block("new_tokens", 1024, 2048), Block("new_tokens", 8192, np.inf),
                          Block("batch", 8, 16)),
    "attention_decode": (Block("context", 1000, 5000), Block("context", 60000, np.inf),
                         Block("batch", 32, 64)),
    "mla_prefill": (Block("new_tokens", 1024, 2048), Block("new_tokens", 8192, np.inf)),
    "mla_decode": (Block("context", 1000, 5000), Block("context", 60000, np.inf),
                   Block("batch", 32, 64)),
    "dsa_prefill": (Block("new_tokens", 1024, 2048), Block("context", 16000, np.inf)),
    "dsa_decode": (Block("context", 3000, 8192), Block("context", 60000, np.inf),
                   Block("batch", 32, 64)),
    "linear_attention": (Block("batch", 16, 64),),
    "moe": (Block("tokens", 128, 256), Block("tokens", 8192, np.inf)),
    **dict.fromkeys(COLLECTIVES, _COLLECTIVE),
}


@dataclass(frozen=True)
class BlockErrors:
    """Log errors of one held-out block under the fit and under its rivals.

    Args:
        block: its name.
        fit, table, roofline: log(measured / predicted) of the same rows.
        widening: factor on the error of each row for its distance from the kept rows.
    """

    block: str
    fit: Array
    table: Array
    roofline: Array
    widening: Array


def hold_out(kernel: Kernel, hardware: Hardware, log_error: float) -> list[BlockErrors]:
    """Return the errors on each block of the operator that the kernel has rows in and outside.

    Args:
        kernel: measured rows.
        hardware: they were measured on.
        log_error: of the kernel's surface, as a random fifth of the rows showed it.
    """
    found = []
    for block in BLOCKS.get(kernel.operator, ()):
        inside = block.rows(kernel)
        if min(inside.sum(), (~inside).sum()) < 2 * FEWEST:
            continue
        kept, held = kernel.select(np.flatnonzero(~inside)), kernel.select(np.flatnonzero(inside))
        surface = fit_surface(kept, hardware)
        surface = replace(surface, efficiency=replace(surface.efficiency, log_error=log_error))
        errors = log_errors(surface, held, hardware)
        sure = np.asarray(predict(surface, held, hardware).log_error) / log_error
        found.append(BlockErrors(
            block.name, errors, np.log(held.latency_s / table_lookup(kept, held, block.column)),
            roofline_errors(held, hardware), np.broadcast_to(sure, errors.shape)))
    return found


def roofline_errors(kernel: Kernel, hardware: Hardware) -> Array:
    """Return log(measured / predicted) under the generic roofline."""
    found = Calibration.roofline().latency(kernel.operator, hardware, **kernel.shape)
    return np.log(kernel.latency_s / found.seconds)


def table_lookup(kept: Kernel, held: Kernel, column: str) -> Array:
    """Return what plain interpolation of the kept rows says about the held rows.

    Args:
        kept, held: rows of one kernel.
        column: along which to interpolate; all other columns must agree.
    """
    keys = _other_columns(kept, held, column)
    mine, theirs = keys[: len(kept.latency_s)], keys[len(kept.latency_s):]
    x, y = np.log(np.maximum(kept.shape[column], 0.5)), np.log(kept.latency_s)
    at = np.log(np.maximum(held.shape[column], 0.5))
    guess = _nearest(kept, held)
    order = np.lexsort((x, mine))
    starts = np.searchsorted(mine[order], np.arange(keys.max() + 2))
    for key in np.unique(theirs):
        rows = order[starts[key]:starts[key + 1]]
        if len(rows) > 1 and x[rows[-1]] > x[rows[0]]:
            wanted = np.flatnonzero(theirs == key)
            guess[wanted] = _line(at[wanted], x[rows], y[rows])
    return np.exp(guess)


def _other_columns(kept: Kernel, held: Kernel, column: str) -> NDArray[np.intp]:
    ignored = {column, "touched", "max_load"}
    names = [n for n, v in kept.shape.items() if isinstance(v, np.ndarray) and n not in ignored]
    both = [np.concatenate([kept.shape[n], held.shape[n]]) for n in names]
    if not both:
        return np.zeros(len(kept.latency_s) + len(held.latency_s), np.intp)
    return np.unique(np.stack(both, 1), axis=0, return_inverse=True)[1].reshape(-1)


def _line(at: Array, x: Array, y: Array) -> Array:
    """Return linear interpolation, extended beyond the ends by the last slope."""
    x, first = np.unique(x, return_index=True)
    y = y[first]
    value = np.interp(at, x, y)
    above, below = at > x[-1], at < x[0]
    # The slope between neighbours one token apart is noise: take it over half an octave.
    back = max(int(np.searchsorted(x, x[-1] - SLOPE_OVER, side="right")) - 1, 0)
    ahead = min(int(np.searchsorted(x, x[0] + SLOPE_OVER)), len(x) - 1)
    value[above] = y[-1] + (at[above] - x[-1]) * (y[-1] - y[back]) / (x[-1] - x[back])
    value[below] = y[0] + (at[below] - x[0]) * (y[ahead] - y[0]) / (x[ahead] - x[0])
    return np.asarray(value)


SLOPE_OVER = 0.5 * np.log(2.0)


def _nearest(kept: Kernel, held: Kernel) -> Array:
    from scipy.spatial import cKDTree

    tree = cKDTree(np.stack(features_of(kept, Efficiency()), axis=1))
    nearest = tree.query(np.stack(features_of(held, Efficiency()), axis=1))[1]
    return np.asarray(np.log(kept.latency_s[nearest]))


def summary(errors: BlockErrors) -> Mapping[str, Any]:
    """Return the figures of a block as plain data: [median, p90, bias], of rivals the first two."""
    return {"rows": len(errors.fit), "fit": _three(errors.fit),
            "table": _three(errors.table)[:2], "roofline": _three(errors.roofline)[:2]}


def _three(errors: Array) -> list[float]:
    size = np.expm1(np.abs(errors))
    return [float(f"{x:.3g}") for x in (np.median(size), np.quantile(size, 0.9),
                                        np.expm1(np.median(errors)))]


# Rows that the blocks are held out of: enough for the figures, a fraction of the time.
BLOCK_ROWS = 20_000


def block_errors(
    kernel: Kernel, hardware: Hardware, log_error: float, seed: int = 2
) -> tuple[Array, Array, dict[str, Any]]:
    """Return the errors on all blocks in two random halves, and the figures of each block.

    Errors of rows outside the kept ranges are divided by the widening that they are predicted
    with, so that either half can be held against one error.
    """
    rng, rows = np.random.default_rng(seed), len(kernel.latency_s)
    some = kernel if rows <= BLOCK_ROWS else kernel.select(
        np.sort(rng.choice(rows, BLOCK_ROWS, replace=False)))
    blocks = hold_out(some, hardware, log_error)
    if not blocks:
        return np.zeros(0), np.zeros(0), {}
    pooled = rng.permutation(np.concatenate([b.fit / b.widening for b in blocks]))
    half = len(pooled) // 2
    return pooled[:half], pooled[half:], {b.block: summary(b) for b in blocks}
