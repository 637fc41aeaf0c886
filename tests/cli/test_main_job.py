"""The main job: the scenario runs, says what it found, and writes all that it promises."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from costsim.planning.results import ScenarioResult
from costsim.planning.run import run_scenario
from costsim.planning.scenario import load_scenario


@pytest.fixture(scope="module")
def result() -> ScenarioResult:
    return run_scenario(load_scenario("arrakis"))


def test_every_combination_is_answered_or_explained(result: ScenarioResult) -> None:
    scenario = result.scenario
    expected = len(scenario.models) * len(scenario.hardware) * len(scenario.workloads)
    assert len(result.cells) == expected
    assert all(cell.estimate is not None or cell.reason for cell in result.cells)
    assert len(result.found()) > 0.7 * expected


def test_deployments_stay_within_the_fleet_and_the_targets(result: ScenarioResult) -> None:
    for cell in result.found():
        assert cell.estimate is not None
        assert cell.estimate.deployment.accelerators <= cell.hardware.limit
        if not cell.reason:
            assert float(cell.estimate.tpot_s) <= cell.workload.target.tpot_s
            assert float(cell.estimate.ttft_s) <= cell.workload.target.ttft_s


def test_sparsity_needs_more_memory_and_at_equal_active_costs_more(result: ScenarioResult) -> None:
    """At equal active parameters every expert added is weights to hold and to read."""
    for hardware in {p.hardware for p in result.sweep}:
        points = [p for p in result.sweep if p.hardware == hardware and p.estimate and not p.reason]
        cost = [float(p.estimate.usd_per_query) for p in points if p.estimate]
        assert cost[-1] > 1.5 * cost[0]
        assert points[-1].total_parameters > points[0].total_parameters


def test_findings_speak_of_every_workload_and_mark_rumours(result: ScenarioResult) -> None:
    text = "\n".join(result.findings)
    for workload in result.scenario.workloads:
        assert workload.title in text
    assert any("rumoured" in line for line in result.warnings)


@pytest.mark.slow
def test_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costsim.cli.run import run_one
    from costsim.planning.scenario import load_scenario

    monkeypatch.chdir(tmp_path)
    run_one(load_scenario("arrakis"), tmp_path / "o", as_json=False, figures=True)
    files = {p.name for p in (tmp_path / "o").iterdir()}
    assert len([n for n in files if n.endswith(".png")]) >= 5
    assert len([n for n in files if n.endswith(".svg")]) >= 5
    data = json.loads((tmp_path / "o" / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "o" / "results.csv").open()))
    assert len(rows) == len(data["deployments"])
    priced = [r for r in rows if r["usd_per_query"]]
    assert all(float(r["usd_per_query_low"]) < float(r["usd_per_query"])
               < float(r["usd_per_query_high"]) for r in priced)
    page = (tmp_path / "o" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert not [n for n in files if n.endswith(".tmp")]
