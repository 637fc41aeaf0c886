"""A user's benchmark: made by an engine whose overheads are known, which the refit must find."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark_files as files
import numpy as np
import pytest
from click.testing import CliRunner

from costsim.cli.validate import command as validate
from costsim.engine.deployment import Deployment
from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings
from costsim.engine.steady_state import operating_point
from costsim.errors import InputError
from costsim.planning.estimate import make_deployment
from costsim.validation.benchmarks.lists import read_flat
from costsim.validation.refit import preset_path, refit, save, split
from costsim.validation.user_benchmark import compare_runs, load_of

USERS = (2, 8, 16, 32, 64, 128)
TRUE = {"kernel_time_factor": 1.25, "host_step_s": 0.004, "frontend_s": 0.12}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is saved out of the user's own folder."""
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def served() -> Deployment:
    """What is thought to run."""
    return make_deployment("llama-3.1-8b", "h100_sxm", Layout())


@pytest.fixture(scope="module")
def real(served: Deployment) -> Deployment:
    """What really runs: other overheads."""
    return served.with_changes(settings=replace(served.settings, **TRUE))  # type: ignore[arg-type]


def measured(real: Deployment, users: int, spread: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return what vLLM's benchmark says of the real engine."""
    at = operating_point(real, users, 1000.0, 200.0)
    load = files.closed_loop(users, 1000, 200, float(at.ttft_s), float(at.tpot_s), 40 * users,
                             spread, users)
    return files.vllm(load, **more)


def test_a_run_of_the_predicted_engine_agrees(served: Deployment) -> None:
    found = compare_runs([read_flat(measured(served, c), "f") for c in USERS], served)
    for metric, summary in found.summary().items():
        assert summary["worst"] < 0.03, metric
        assert summary["inside"] == 1.0


def test_a_slower_engine_is_seen(served: Deployment, real: Deployment) -> None:
    summary = compare_runs([read_flat(measured(real, c), "f") for c in USERS], served).summary()
    assert summary["tpot_s"]["bias"] < -0.2
    assert summary["output_tokens_per_s"]["bias"] > 0.2


def test_the_refit_finds_the_overheads_and_says_so_on_held_out_runs(
    served: Deployment, real: Deployment
) -> None:
    runs = [read_flat(measured(real, c, spread=0.05), f"f{c}") for c in USERS]
    found = refit(runs, served, "mine")
    assert found.fitted_on == 3 and found.after_held is not None
    assert found.before_held is not None
    before, after = found.before_held.summary(), found.after_held.summary()
    for metric in ("tpot_s", "ttft_s", "output_tokens_per_s"):
        assert after[metric]["median"] < 0.25 * before[metric]["median"], metric
        assert after[metric]["median"] < 0.05, metric
    assert found.after["frontend_s"] == pytest.approx(TRUE["frontend_s"], rel=0.15)
    # Kernels and host trade against each other; together they make the step.
    assert found.after["kernel_time_factor"] > found.before["kernel_time_factor"]
    assert found.after["host_step_s"] > found.before["host_step_s"]


def test_without_news_the_refit_stays_at_the_preset(served: Deployment) -> None:
    found = refit([read_flat(measured(served, c), "f") for c in USERS], served, "mine")
    for figure, value in found.before.items():
        assert found.after[figure] == pytest.approx(value, rel=0.1, abs=3e-4), figure


def test_one_run_is_held_out_by_request_or_not_at_all(served: Deployment, real: Deployment) -> None:
    detailed = read_flat(measured(real, 16, 0.1, detailed=True), "f")
    fitting, held, how = split([detailed])
    assert "half" in how and len(held) == 1
    assert held[0].requests + fitting[0].requests == detailed.requests
    found = refit([detailed], served, "mine")
    assert found.after_held is not None and found.before_held is not None
    assert (found.after_held.summary()["tpot_s"]["median"]
            < 0.5 * found.before_held.summary()["tpot_s"]["median"])
    plain = refit([read_flat(measured(real, 16), "f")], served, "mine")
    assert plain.after_held is None and "nothing can be held out" in plain.held_out


def test_open_loop_is_compared_at_the_batch_of_its_rate(served: Deployment) -> None:
    at = operating_point(served, 32.0, 1000.0, 200.0)
    rate = float(at.requests_per_s)
    row = measured(served, 32, max_concurrency=None, request_rate=rate)
    found = load_of(read_flat(row, "f"), served)
    assert found.batch == pytest.approx(32, rel=0.03) and not found.queued
    over = load_of(read_flat({**row, "request_rate": 1e4}, "f"), served)
    assert over.queued and "above the predicted capacity" in over.notes[0]


def test_all_at_once_leaves_ttft_out(served: Deployment) -> None:
    row = measured(served, 32, max_concurrency=None, request_rate="inf")
    found = compare_runs([read_flat(row, "f")], served)
    names = [m.metric for m in found.runs[0].rows]
    assert "ttft_s" not in names and "tpot_s" in names


def test_a_loop_that_never_filled_is_compared_at_what_was_in_flight(served: Deployment) -> None:
    at = operating_point(served, 4.0, 1000.0, 200.0)
    load = files.closed_loop(64, 1000, 200, float(at.ttft_s), float(at.tpot_s), count=8)
    found = load_of(read_flat(files.vllm(load, max_concurrency=64), "f"), served)
    assert found.batch == pytest.approx(8, rel=0.05) and "too few" in found.notes[0]


def test_the_saved_engine_is_found_by_name(
    served: Deployment, real: Deployment, home: Path
) -> None:
    runs = [read_flat(measured(real, c), "f") for c in USERS]
    found = save(refit(runs, served, "my-vllm"), "mine.json")
    assert found.file is not None and found.file.is_relative_to(home)
    settings = load_settings("my-vllm")
    assert settings.host_step_s == pytest.approx(found.after["host_step_s"], rel=1e-4)
    assert settings.max_num_batched_tokens == served.settings.max_num_batched_tokens
    assert settings.kernels == "vllm"
    again = make_deployment("llama-3.1-8b", "h100_sxm", Layout(), engine="my-vllm")
    summary = compare_runs(runs, again).summary()
    assert summary["tpot_s"]["median"] < 0.03
    assert again.calibration.engine == "vllm"


def test_a_shipped_engine_is_not_overwritten() -> None:
    for name, base, message in (("vllm", "sglang", "exists"), ("../x", "vllm", "only letters"),
                                ("mine", "mine-too", "extends it by name"),
                                ("vllm", "vllm", "extends that one")):
        with pytest.raises(InputError, match=message):
            preset_path(name, base)


def _files(tmp_path: Path, real: Deployment) -> Path:
    return files.write(tmp_path / "mine.json", *(measured(real, c) for c in USERS))


def test_the_command_takes_a_file_without_a_word(tmp_path: Path, real: Deployment) -> None:
    path = str(_files(tmp_path, real))
    same = ["--model", "llama-3.1-8b", "--hardware", "h100_sxm", "--tp", "1", "--json"]
    short = CliRunner().invoke(validate, [path, *same], catch_exceptions=False)
    spelled = CliRunner().invoke(validate, ["benchmark", path, *same], catch_exceptions=False)
    assert short.exit_code == 0 and short.stdout == spelled.stdout
    data = json.loads(short.stdout)
    assert [r["batch"] for r in data["runs"]] == list(map(float, USERS))
    metrics = {m["metric"]: m for m in data["runs"][2]["metrics"]}
    assert metrics["tpot_s"]["low"] < metrics["tpot_s"]["predicted"] < metrics["tpot_s"]["high"]
    assert math.isfinite(metrics["ttft_s"]["error"])


def test_the_commands_show_tables_and_write_files(
    tmp_path: Path, real: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    from costsim.cli import main

    path, out = str(_files(tmp_path, real)), tmp_path / "out"
    what = ["--model", "llama-3.1-8b", "--hardware", "h100_sxm", "--tp", "1"]
    for args in (["validate", path, *what, "--output", str(out)],
                 ["calibrate", "--from", path, *what, "--name", "mine"],
                 ["validate", path, *what, "--engine", "mine"]):
        with pytest.raises(SystemExit) as left:
            main(args)
        assert left.value.code == 0
    shown = capsys.readouterr().out
    for word in ("concurrency 16", "TPOT", "Held out", "kernel time factor", "--engine mine"):
        assert word in shown
    assert (out / "benchmark.png").is_file() and (out / "benchmark.json").is_file()


@pytest.mark.parametrize(("args", "message"), [
    (["validate", "none.json", "--model", "llama-3.1-8b", "--hardware", "h100_sxm"],
     "none.json: No such file"),
    (["validate", "none.json", "--model", "llama-3.1-8b"], "--hardware"),
    (["calibrate", "--from", "none.json", "--hardware", "h100_sxm"], "needs --model"),
    (["calibrate", "--from", "a.csv", "--from", "b.csv"], "several files"),
])
def test_mistakes_are_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from costsim.cli import main

    with pytest.raises(SystemExit) as left:
        main(args)
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2 and message in said and "\n" not in said


def test_intervals_of_means_use_the_stated_error(served: Deployment) -> None:
    row = compare_runs([read_flat(measured(served, 16), "f")], served).runs[0].rows[1]
    low, high = row.interval
    assert high / low == pytest.approx(float(np.exp(2 * 1.6449 * row.log_error)))


@pytest.mark.parametrize(("stated", "layout"), [("2", "TP2"), ("many", "TP1")])
def test_without_tp_the_metadata_say_it(
    tmp_path: Path, real: Deployment, stated: str, layout: str
) -> None:
    path = files.write(tmp_path / "m.json", measured(real, 8, tensor_parallel_size=stated))
    found = CliRunner().invoke(
        validate, [str(path), "--model", "llama-3.1-8b", "--hardware", "h100_sxm", "--json"],
        catch_exceptions=False)
    assert json.loads(found.stdout)["layout"] == layout


def test_more_in_flight_than_fit_wait_in_front_of_the_engine(served: Deployment) -> None:
    few = served.with_changes(settings=replace(served.settings, max_num_seqs=16))
    at = operating_point(few, 16.0, 1000.0, 200.0)
    row = files.vllm(files.closed_loop(64, 1000, 200, 1.0, float(at.tpot_s), 640))
    compared = compare_runs([read_flat(row, "f")], few).runs[0]
    assert any("wait in front" in note for note in compared.notes)
    by = {m.metric: m.predicted for m in compared.rows}
    assert by["ttft_s"] > 2 * float(at.ttft_s) + 1.0
    assert by["requests_per_s"] == pytest.approx(float(at.requests_per_s))


def test_what_cannot_have_run_is_said(served: Deployment) -> None:
    tight = make_deployment("llama-3.1-405b", "l40s", Layout())
    row = read_flat(measured(served, 8), "f")
    assert any("--tp" in note for note in compare_runs([row], tight).runs[0].notes)
    assert not any("--tp" in note for note in compare_runs([row], served).runs[0].notes)
