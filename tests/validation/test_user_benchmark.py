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
from costsim.validation.benchmarks.replay import arrivals, lengths, replay, simulated
from costsim.validation.benchmarks.run import Run
from costsim.validation.refit import preset_path, refit, save, split
from costsim.validation.user_benchmark import compare_runs

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


def asked(users: int | None, count: int, isl: int = 1000, rate: float = math.inf) -> Run:
    """Return a run of which only the load is known."""
    load = files.closed_loop(users or 1, isl, 200, 1.0, 0.01, count)
    run = read_flat(files.vllm(load), "f")
    return replace(run, concurrency=users, request_rate=rate)


def measured(
    real: Deployment, users: int, spread: float = 0.0, count: int = 0, **more: Any
) -> dict[str, Any]:
    """Return what vLLM's benchmark says of the real engine, as the simulator runs it."""
    found, output = simulated(asked(users, count or 20 * users), real)
    noise = np.exp(spread * np.random.default_rng(users).standard_normal((2, len(output))))
    tokens = found.table["prompt"].astype(float), found.table["output"].astype(float)
    load = files.Load(users, *tokens, found.latency("ttft_s") * noise[0],
                      found.latency("tpot_s") * noise[1], found.table["arrival"])
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
    # TTFT is rough: which prompts meet in a step turns on small differences.
    for metric, most in (("tpot_s", 0.05), ("ttft_s", 0.1), ("output_tokens_per_s", 0.05)):
        assert after[metric]["median"] < 0.3 * before[metric]["median"], metric
        assert after[metric]["median"] < most, metric
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


def test_an_open_loop_sends_at_its_rate_and_fills_what_the_rate_fills(served: Deployment) -> None:
    at = operating_point(served, 32.0, 1000.0, 200.0)
    rate = float(at.requests_per_s)
    found = replay(asked(None, 2000, rate=rate), served)
    assert found.in_flight == pytest.approx(32, rel=0.15)
    assert found.requests_per_s == pytest.approx(rate, rel=0.05)
    slow = replay(asked(None, 50, rate=0.2), served)
    assert slow.in_flight < 0.5 and slow.requests_per_s == pytest.approx(0.2, rel=0.05)
    over = compare_runs([asked(None, 500, rate=100.0)], served).runs[0]
    assert any("queue grows" in note for note in over.notes)


def test_gaps_have_the_spread_of_the_run() -> None:
    even = arrivals(replace(asked(None, 100, rate=4.0), arrival_cv=0.0), 100)
    assert np.allclose(np.diff(even), 0.25)
    drawn = arrivals(asked(None, 4000, rate=4.0), 4000)
    gaps = np.diff(drawn)
    assert drawn[-1] == pytest.approx(999.75) and np.std(gaps) / np.mean(gaps) == pytest.approx(
        1.0, abs=0.06)


@pytest.mark.parametrize("cv", [0.0, 0.3, 0.577, 1.2])
def test_drawn_lengths_have_mean_and_spread(cv: float) -> None:
    prompt, output = lengths(replace(asked(1, 3000), isl_cv=cv, osl_cv=cv))
    for found, mean in ((prompt, 1000), (output, 200)):
        assert np.mean(found) == pytest.approx(mean, rel=0.01)
        assert np.std(found) / np.mean(found) == pytest.approx(cv, abs=0.02)


def test_all_at_once_is_a_burst_with_its_queue(served: Deployment) -> None:
    run = asked(None, 400)
    found = compare_runs([run], served).runs[0]
    assert any("all 400 requests at once" in note for note in found.notes)
    by = {m.metric: m.predicted for m in found.rows}
    # The prompts alone take this long; on average a request waits for half of them.
    prompts = 400 * float(operating_point(served, 1.0, 1000.0, 1.0).prefill.seconds)
    assert 0.2 * prompts < by["ttft_s"] < prompts
    assert found.predicted.queue_share > 0.5


def test_a_stall_of_the_first_request_is_seen(served: Deployment) -> None:
    row = measured(served, 4)
    usual = compare_runs([read_flat(row, "f")], served).runs[0]
    assert not any("warmed up" in note for note in usual.notes)
    cold = {**row, "mean_ttft_ms": row["mean_ttft_ms"] + 9 * row["median_ttft_ms"]}
    found = compare_runs([read_flat(cold, "f")], served).runs[0]
    assert any("warmed up" in note for note in found.notes)
    ttft = next(m for m in found.rows if m.metric == "ttft_s")
    assert ttft.measured == pytest.approx(row["median_ttft_ms"] / 1e3)


def test_a_long_loop_of_mixed_lengths_is_near_the_steady_state(served: Deployment) -> None:
    run = replace(asked(32, 3000), isl_cv=0.4, osl_cv=0.4)
    found, at = replay(run, served), operating_point(served, 32.0, 1000.0, 200.0)
    assert found.tpot_s.mean == pytest.approx(float(at.tpot_s), rel=0.1)
    assert found.requests_per_s == pytest.approx(float(at.requests_per_s), rel=0.1)


def test_a_loop_shorter_than_its_limit_is_a_burst(served: Deployment) -> None:
    short, all_at_once = replay(asked(64, 8), served), replay(asked(None, 8), served)
    assert short == all_at_once


def test_replicas_share_the_load(served: Deployment) -> None:
    one, two = replay(asked(16, 160), served), replay(asked(32, 320), served, replicas=2)
    assert two.tpot_s.mean == pytest.approx(one.tpot_s.mean, rel=0.05)
    assert two.requests_per_s == pytest.approx(2 * one.requests_per_s, rel=0.05)


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
    assert [r["batch"] for r in data["runs"]] == pytest.approx(USERS, rel=0.1)
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
    (["calibrate", "--from", "a.csv", "b.csv"], "several files"),
    (["calibrate", "--from", "none.json", "more.json", "--hardware", "h100_sxm"], "needs --model"),
    (["calibrate", "mine.json"], "come after --from"),
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
    compared = compare_runs([asked(64, 640)], few).runs[0]
    assert any("wait in front" in note for note in compared.notes)
    by = {m.metric: m.predicted for m in compared.rows}
    assert by["ttft_s"] > 2 * float(at.ttft_s) + 1.0
    assert by["requests_per_s"] == pytest.approx(float(at.requests_per_s), rel=0.1)


def test_what_cannot_have_run_is_said(served: Deployment) -> None:
    tight = make_deployment("llama-3.1-405b", "l40s", Layout())
    row = read_flat(measured(served, 8), "f")
    assert any("--tp" in note for note in compare_runs([row], tight).runs[0].notes)
    assert not any("--tp" in note for note in compare_runs([row], served).runs[0].notes)
