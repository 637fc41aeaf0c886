"""The table of operating points shows every figure at every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from costsim.engine.layout import Layout
from costsim.hardware.loader import load_hardware
from costsim.planning.estimate import estimate
from costsim.reports.tables_estimate import ESTIMATE_COLUMNS, estimate_row, estimate_table
from costsim.reports.tables_hardware import figures


@pytest.mark.parametrize("width", [80, 99, 100, 120, 149, 150, 200])
def test_no_figure_is_lost_or_cut(width: int) -> None:
    found = estimate("llama-3.1-70b", "h100_sxm", Layout(tp=4), batch=32, isl=2048, osl=512)
    screen = io.StringIO()
    Console(file=screen, width=width).print(estimate_table([found]))
    text = screen.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    for column, cell in zip(ESTIMATE_COLUMNS, estimate_row(found), strict=True):
        value, _, interval = cell.partition(" \\[")
        assert value in text, column
        assert interval in text, column


def test_every_sourced_figure_of_a_profile_has_its_value() -> None:
    for name in ("h100_sxm", "mi300x", "cpu_generic", "groq_lpu"):
        hardware = load_hardware(name)
        assert set(hardware.sources) <= set(figures(hardware)), name
