"""Runs from public repositories: the table, its sources, and that a wrong machine is noticed."""

from __future__ import annotations

import math
from pathlib import Path

import benchmark_files as files
import pytest
from click.testing import CliRunner

from costsim.cli.validate import command as validate
from costsim.errors import InputError
from costsim.validation.benchmarks.lists import read_flat
from costsim.validation.comparison import summarise
from costsim.validation.public_runs import (
    COLUMNS,
    RUNS,
    compare,
    comparison,
    left_out,
    read_table,
    rows_of,
    sources,
)


def test_every_source_has_runs_and_stands_somewhere() -> None:
    table = read_table()
    assert set(table) == set(sources())
    assert len({s.repository for s in sources().values()}) >= 7
    assert sum(map(len, table.values())) >= 190
    for key, source in sources().items():
        assert len(source.commit) == 40 and source.repository.count("/") == 1, key
        assert all(run.source and run.requests > 0 for run in table[key]), key
    assert all(reason.count("/") and runs > 0 for reason, runs in left_out().items())


def test_a_run_is_the_same_after_the_table(tmp_path: Path) -> None:
    load = files.closed_loop(8, 1024, 256, 0.12, 0.011, spread=0.1)
    for change in ({}, {"request_rate": 3.0, "max_concurrency": None}):
        run = read_flat(files.vllm(load, **change), "f")
        row = rows_of("wentao-h100-minimax", "f", run)
        path = tmp_path / "runs.csv"
        path.write_text(",".join(COLUMNS) + "\n" + ",".join(row[c] for c in COLUMNS) + "\n",
                        encoding="utf-8")
        again, = read_table(path)["wentao-h100-minimax"]
        assert (again.concurrency, again.request_rate) == (run.concurrency, run.request_rate)
        for name in ("isl", "osl", "requests_per_s", "output_tokens_per_s"):
            assert getattr(again, name) == pytest.approx(getattr(run, name), rel=1e-4)
        assert again.tpot_s.mean == pytest.approx(run.tpot_s.mean, rel=1e-4)


def test_a_table_that_is_wrong_says_so(tmp_path: Path) -> None:
    text = RUNS.read_text(encoding="utf-8")
    path = tmp_path / "runs.csv"
    path.write_text(text.replace("wentao-h100-minimax", "nobody"), encoding="utf-8")
    with pytest.raises(InputError, match="no source 'nobody'"):
        read_table(path)
    path.write_text(text.replace("duration_s", "duration"), encoding="utf-8")
    with pytest.raises(InputError, match="no column duration_s"):
        read_table(path)


@pytest.mark.parametrize("key", ["auro-l40s-8b-fp8", "cookbook-b200-qwen3-235b"])
def test_predictions_hold_and_a_machine_at_half_its_rate_is_noticed(key: str) -> None:
    table = {key: read_table()[key]}

    def error(rate: float) -> float:
        points = compare(table, rate)
        return summarise(p for p in points if p.quantity == "output_tokens_per_s").median

    assert error(1.0) < 0.2
    assert error(0.5) > 1.5 * error(1.0) + 0.1


def test_older_engines_are_shown_and_do_not_count() -> None:
    key = next(k for k, s in sources().items() if s.older)
    points = compare({key: read_table()[key][:2]})
    assert points and not any(p.counts for p in points)
    assert all(p.explanation == sources()[key].older for p in points)
    assert all(math.isfinite(p.error) and p.log_error > 0 for p in points)


def test_the_comparison_has_all_runs() -> None:
    found = comparison()
    assert found.key == "public" and len(found.points) > 550
    throughput, tpot, ttft, inside = (aim.reached for aim in found.aims)
    assert throughput < 0.2 and tpot < 0.2 and ttft < 0.6 and 0.5 < inside <= 1
    _, rows = found.tables["By source"]
    assert len(rows) == len(sources())
    assert found.left_out == left_out()


def test_the_command_prints_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {k: v for k, v in read_table().items() if k == "recipes-h200-nemotron-nano"}
    monkeypatch.setattr("costsim.validation.public_runs.read_table", lambda: few)
    found = CliRunner().invoke(validate, ["public"], catch_exceptions=False)
    assert found.exit_code == 0 and "Public runs" in found.stdout
