"""Comparisons, their aims, and the page that shows every point."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from costsim.cli import cli
from costsim.reports.accuracy import figure_of, write_report
from costsim.reports.accuracy_markdown import markdown
from costsim.validation.comparison import (
    Aim,
    ComparedPoint,
    Comparison,
    by_class,
    summarise,
)
from costsim.validation.comparisons import COMPARISONS, Where, compare_all

POINTS = [
    ComparedPoint("one", "tpot_s", 0.011, 0.010, 0.1, {"hardware": "h100_sxm"}, "a paper"),
    ComparedPoint("two", "tpot_s", 0.030, 0.010, 0.1, {"hardware": "b200_sxm"}, "a paper",
                  explanation="a <cause>"),
    ComparedPoint("three", "tpot_s", 0.0099, 0.010, 0.1, {"hardware": "h100_sxm"}, "a paper"),
    ComparedPoint("four", "ttft_s", 0.5, 0.4, math.nan, {"hardware": "h100_sxm"}, "a paper"),
]
FOUND = Comparison("mine", "My comparison", "About it.", POINTS,
                   [Aim("median error", 0.1, 0.15), Aim("share inside", 0.67, 0.85, least=True)],
                   ("hardware",), [("peer", "TPOT", "14 %")], {"no table": 3})


def test_summaries() -> None:
    s = summarise(p for p in POINTS if p.quantity == "tpot_s")
    assert (s.points, s.median, s.bias) == (3, pytest.approx(0.1), pytest.approx(0.1))
    assert s.inside == pytest.approx(2 / 3)
    assert math.isnan(summarise([POINTS[3]]).inside)
    assert list(by_class(POINTS, "hardware")) == ["b200_sxm", "h100_sxm"]
    assert [p.id for p in FOUND.worst(2)] == ["two", "four"]


def test_aims() -> None:
    assert FOUND.aims[0].met and not FOUND.aims[1].met
    assert not Aim("nothing compared", math.nan, 1.0).met


@pytest.mark.parametrize(("value", "quantity", "text"), [
    (0.0215, "tpot_s", "21.5 ms"), (302.7, "ttft_s", "302.7 s"),
    (92_340.4, "output_tokens_per_s", "92,340 tokens/s"), (1.05, "ratio", "1.05")])
def test_figures_are_read_in_their_usual_unit(value: float, quantity: str, text: str) -> None:
    assert figure_of(value, quantity) == text


def test_page_has_every_point(tmp_path: Path) -> None:
    write_report([FOUND], tmp_path)
    text = (tmp_path / "accuracy.html").read_text(encoding="utf-8")
    for p in POINTS:
        assert p.id in text
    assert "a &lt;cause&gt;" in text and "14 %" in text and "http" not in text
    assert text.count("data:image/png") == 2
    with (tmp_path / "points.csv").open(encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [p.id for p in POINTS]
    data = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))
    assert data["mine"]["quantities"]["tpot_s"]["all"]["points"] == 3


def test_markdown_names_aims_and_skipped() -> None:
    text = markdown([FOUND, Comparison("none", "Absent", "", skipped="no data")])
    assert "| My comparison | share inside | 67.0 % | ≥ 85.0 % | no |" in text
    assert "Absent: not compared, no data" in text


def test_what_is_absent_is_skipped_with_its_reason() -> None:
    found = compare_all(only=("engine", "serving", "published_csv", "training"))
    skipped = {c.key: c.skipped for c in found}
    assert all(skipped[name] for name in ("engine", "serving", "published_csv"))
    assert not skipped["training"]


def test_saved_engine_result_is_compared(tmp_path: Path) -> None:
    step = {"model": "llama-28m", "phase": "decode", "requests": 1, "tokens": 64, "moe": False,
            "measured_s": 0.010, "predicted_s": 0.011, "log_error": 0.1, "spread": 0.02}
    sparse = {**step, "model": "mixtral-60m", "moe": True, "predicted_s": 0.0125}
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({
        "about": {"processor": "a CPU", "device": "cpu", "dtype": "fp32", "threads": 1},
        "noise_sentence": "Quiet.", "steps": [step, sparse],
        "ratios": [{"moe": "mixtral-60m", "dense": "llama-28m", "step": "decode 1 x 64",
                    "measured": 1.0, "predicted": 1.05}]}), encoding="utf-8")
    found = compare_all(Where(engine=path), ("engine",))[0]
    assert [aim.met for aim in found.aims] == [True, False, True]
    assert "Quiet." in found.about


def test_command_names_are_those_of_the_comparisons() -> None:
    from costsim.cli.validate_all import NAMES

    assert set(NAMES) == set(COMPARISONS)


def test_validate_all_writes_its_page(tmp_path: Path) -> None:
    page = tmp_path / "accuracy.md"
    done = CliRunner().invoke(cli, [
        "validate", "all", "--only", "training", "--json", "--write", str(page)])
    assert done.exit_code == 0, done.output
    assert "Training runs" in page.read_text(encoding="utf-8")


def test_validate_published_reads_a_table(tmp_path: Path) -> None:
    head = ("id,source,date,model,gpu,n_gpu,weight_precision,engine,input_len,output_len,"
            "throughput_output_tok_s,scenario,verified,tp\n")
    row = ("a,x perf-overview.md @00f37686,2025-08,Llama 3.3 70B,H100-SXM-80GB,2,FP8,TensorRT-LLM,"
           "1000,1000,4205,max-throughput,yes,2\n")
    table = tmp_path / "mine.csv"
    table.write_text(head + row, encoding="utf-8")
    done = CliRunner().invoke(cli, [
        "validate", "published", "--points", str(table), "--calibration", "kernels", "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["quantities"]["output_tokens_per_s"]["all"]["points"] == 1
    assert data["quantities"]["output_tokens_per_s"]["all"]["median"] < 0.3
