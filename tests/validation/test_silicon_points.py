"""The measured serving points are read as what they are."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.validation.silicon_points import read_points
from costsim.validation.silicon_setups import repaired_layout


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        ((64, 1, 8, 8, True), Layout(tp=8, ep=8)),
        ((1, 64, 8, 8, True), Layout(dp=8, ep=8)),
        ((4, 4, 1, 16, True), Layout(dp=4, ep=4)),
        ((8, 1, 1, 8, True), Layout(tp=8, ep=8)),
        ((4, 1, 2, 2, False), Layout(tp=4, ep=2)),
        ((4, 1, 4, 1, True), Layout(tp=4)),
        ((36, 1, 36, 1, True), None),
    ],
)
def test_layout_columns(columns: tuple[int, int, int, int, bool], layout: Layout | None) -> None:
    found = repaired_layout(*columns)
    assert (found[0] if found else None) == layout


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extra 'silicon'"):
        read_points(tmp_path / "none.csv")


def test_all_rows_are_read_or_named(silicon: Path) -> None:
    points, left = read_points(silicon / "systems" / "silicon_sample.csv")
    assert len(points) + len(left) == 5221
    assert len(left) < 0.05 * 5221
    assert sum(p.fit for p in points) + sum(p.fit for p in left) == 2630
    assert all(p.tpot_s > 0 and p.concurrency > 0 for p in points)


def test_repaired_rows_agree_with_their_twins(silicon: Path) -> None:
    """Where one run stands under two conventions, the repaired layouts are the same."""
    points, _ = read_points(silicon / "systems" / "silicon_sample.csv")
    by_run = defaultdict(set)
    for point in points:
        if point.layout is not None:
            by_run[point.measured].add(str(point.layout))
    twins = [point.measured for point in points if point.repaired]
    shared = [run for run in twins if len(by_run[run]) > 1]
    assert len(shared) < 0.02 * len(twins), [sorted(by_run[r]) for r in shared[:5]]
