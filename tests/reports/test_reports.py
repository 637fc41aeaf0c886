"""Figures, pages and tables hold what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from costsim.planning.results import ScenarioResult
from costsim.planning.run import run_scenario
from costsim.planning.scenario import load_scenario
from costsim.reports import html
from costsim.reports.figures import FIGURES
from costsim.reports.scenario import as_csv, rows_of, write_report
from costsim.reports.style import dollars

SCENARIO = """
title = "t"
question = "q <b>?"
simulate_s = "20 s"
models = [{key = "moe", model = "gpt-4", precision = "int8"},
          {key = "dense", model = "gpt-4-dense", precision = "int8"}]
hardware = [{hardware = "b200_sxm", limit = 32}]
workloads = [{key = "w", isl = 500, osl = 100, target = {tpot = "100 ms"}}]
baseline = "dense"
sweep = {base = "moe", experts = [4, 8], top_k = 2}
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ScenarioResult:
    path = tmp_path_factory.mktemp("s") / "small.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return run_scenario(load_scenario(path))


@pytest.mark.parametrize("name", list(FIGURES))
def test_each_figure_names_its_units_and_sources(
    result: ScenarioResult, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    png, svg = FIGURES[name](result, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text(encoding="utf-8")
    assert "models marked (r) rest on rumoured figures" in text
    assert "kernel times b200_sxm" in text


def test_figures_are_the_same_bytes_each_time(result: ScenarioResult, tmp_path: Path) -> None:
    first = FIGURES["cost_against_load"](result, tmp_path / "a")
    second = FIGURES["cost_against_load"](result, tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_the_simulator_is_heard_in_the_findings(result: ScenarioResult) -> None:
    said = [line for line in result.findings if line.startswith("Simulated")]
    assert len(said) == len(result.latencies) == 2
    for line, found in zip(said, result.latencies.values(), strict=True):
        held = found["summary"]["tpot_s"]["mean"] <= 0.1
        assert ("meets the targets" in line) == held


def test_table_marks_rumoured_models(result: ScenarioResult) -> None:
    rows = rows_of(result, "w")
    assert len(rows) == 2
    assert any("rumoured" in row[0] or "(r)" in row[0] for row in rows)


def test_report_is_self_contained_and_escapes(result: ScenarioResult, tmp_path: Path) -> None:
    figures = FIGURES["step_breakdown"](result, tmp_path)
    page = write_report(result, tmp_path, figures).read_text(encoding="utf-8")
    assert "q &lt;b&gt;?" in page and "q <b>" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#|https?://)', page)
    assert "data:image/png;base64," in page and "<script" not in page


def test_csv_has_a_row_for_every_combination(result: ScenarioResult) -> None:
    assert len(as_csv(result).strip().splitlines()) == 1 + len(result.cells)


def test_html_table_shows_intervals_small_and_escapes() -> None:
    text = html.table(["a", "b"], [["<x>", "1.0 [0.5, 2.0]"]])
    assert "&lt;x&gt;" in text and "<small>[0.5, 2.0]</small>" in text


@pytest.mark.parametrize(("value", "text"), [(12.0, "$12"), (1.5, "$1.5"), (0.05, "5 ¢"),
                                             (0.001, "0.1 ¢")])
def test_prices_on_axes(value: float, text: str) -> None:
    assert dollars(value) == text
