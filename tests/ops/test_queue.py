"""Kernels priced together, and rows of a grid folded: the same sums as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.ops.fold import Fold
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine
from costsim.ops.tally import Tally

MACHINE = Machine(load_hardware("h100_sxm"), Calibration.roofline())


def one_by_one(queue: Queue) -> Tally:
    """The sums of a queue, every kernel priced by itself."""
    whole = Tally()
    for entry in queue.entries:
        alone = Queue([entry]).price()
        whole.absorb(alone, lambda value: value)
    return whole


def gemms(rows: object, columns: object) -> Queue:
    queue = Queue()
    for i, k in enumerate((512, 1024, 4096, 4096)):
        call = MACHINE("gemm", m=rows, n=columns, k=k, dtype="bf16", activation="bf16")
        queue.add(f"gemm {i % 3}", call, count=i + 1, when=np.asarray(rows) > 3)
    queue.add("norm", MACHINE("elementwise", bytes=np.asarray(rows) * 1e5), 2)
    queue.add("sum", MACHINE("all_reduce", ranks=8, message_bytes=np.asarray(rows) * 1e4), 2)
    return queue


@pytest.mark.parametrize("rows", [5.0, np.arange(1.0, 9.0), np.arange(1.0, 2049.0)])
@pytest.mark.parametrize("columns", [256, np.array([[128.0], [128.0], [256.0], [128.0]])])
def test_together_equals_one_by_one(rows: object, columns: object) -> None:
    queue = gemms(rows, columns)
    together, alone = queue.price(), one_by_one(queue)
    assert together.by_operator.keys() == alone.by_operator.keys()
    for mine, its in ((together.by_operator, alone.by_operator), (together.error, alone.error),
                      (together.by_resource, alone.by_resource)):
        for name in mine:
            np.testing.assert_allclose(*np.broadcast_arrays(mine[name], its[name]), rtol=1e-12)
    for name in ("flop", "memory_bytes", "network_bytes", "calls"):
        np.testing.assert_allclose(
            *np.broadcast_arrays(getattr(together, name), getattr(alone, name)), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(st.integers(0, 2), min_size=6, max_size=12), steps=st.integers(1, 3))
def test_a_fold_gives_every_row_its_own_values(kinds: list[int], steps: int) -> None:
    width = 4096 // (len(kinds) * steps) + 3
    distinct = np.random.default_rng(0).random((3, width))
    grid = np.broadcast_to(distinct[kinds], (1, steps, len(kinds), width)).copy()
    column = np.asarray(kinds, float)[:, None]
    fold = Fold.of([grid, column, "word", 4.0], 3)
    if fold is None:
        assert len(set(kinds)) > 0.7 * len(kinds) * steps
        return
    assert len(fold.first) == len(set(kinds))
    total = (fold.folded(grid) + fold.folded(column)).sum(axis=0)
    whole = np.broadcast_to(fold.unfolded(total), grid.shape[1:])
    np.testing.assert_array_equal(whole, (grid + column)[0])


def test_rows_that_differ_between_their_ends_are_not_folded() -> None:
    grid = np.zeros((1, 4, 2048))
    grid[0, 2, 100] = 1.0
    assert Fold.of([grid], 2) is None
