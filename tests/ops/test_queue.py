"""Kernels priced together, and steps that are alike priced once: the same sums as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.ops.alike import Alike, Fold, distinct
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine
from costsim.ops.tally import Tally

MACHINE = Machine(load_hardware("h100_sxm"), Calibration.roofline())


def one_by_one(queue: Queue) -> Tally:
    """The sums of a queue, every kernel priced by itself."""
    whole = Tally()
    for entry in queue.entries:
        alone = Queue([entry]).price()
        whole.absorb(alone)
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


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 4), min_size=2, max_size=40), data=st.data())
def test_a_fold_gives_every_element_its_own_value(rows: list[int], data: st.DataObject) -> None:
    of = np.array(rows) * 1.25
    tokens = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(rows),
                                         max_size=len(rows)))) / 3.0
    fold = distinct([tokens, 7.0], [of, np.array(3)])
    if fold is None:
        assert np.ptp(of) == 0 and np.ptp(tokens) == 0
        return
    for value in (tokens, of, tokens * of):
        whole = np.broadcast_to(*fold.unfolded([fold.folded(value)]), of.shape)
        assert np.array_equal(whole, value)
    assert len(np.unique(fold.kind)) == len(np.unique([of, tokens], axis=1).T)
    assert fold.folded("word") == "word" and fold.unfolded([0.0]) == [0.0]
    if len(fold.first) > 1:
        assert fold.folded(of).shape[1] == 1, "rows of the table share what they are sorted by"
    kept = np.arange(len(fold.first)) % 2 == 0
    part: Fold = fold.of_rows(kept)
    whole = np.where(kept[fold.kind // fold.first.shape[1]], tokens, 0.0)
    assert np.array_equal(np.broadcast_to(*part.unfolded([part.folded(tokens)]), of.shape), whole)


def test_parts_of_a_step_are_folded_within_it() -> None:
    a, b = np.repeat([1.0, 2.0], 50), np.tile([1.0, 2.0, 3.0, 4.0], 25)
    alike = Alike(100, {"step": lambda: ([a], [b]), "tokens": lambda: ([3.0], [b]),
                        "prompts": lambda: ([], [7.0])})
    step, tokens = alike.fold("step"), alike.within_step("tokens")
    assert step is not None and tokens is not None
    assert step.first.shape == (2, 4) and tokens.first.size == 4
    inner = tokens.unfolded([tokens.folded(b)])
    assert np.array_equal(step.unfolded(inner)[0], b)
    everything = alike.within_step("prompts")
    assert everything is not None and alike.fold("prompts") is None
    assert np.array_equal(step.unfolded(everything.unfolded([everything.folded(b)]))[0], b)
