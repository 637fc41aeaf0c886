"""Predicted against published training runs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from costsim.cli import cli
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.training import published
from costsim.training.estimate import SEARCHED_LOG_ERROR, UNMODELLED_LOG_ERROR
from costsim.training.plan import UNEXPLAINED
from costsim.training.published import (
    PublishedRun,
    family_errors,
    fit_unexplained,
    median_error,
    published_run,
    published_runs,
)


@pytest.fixture(scope="module")
def runs() -> list[PublishedRun]:
    return published_runs()


@pytest.mark.published
def test_median_error_of_runs_never_fitted_on_is_below_15_percent(
    runs: list[PublishedRun],
) -> None:
    counted = [run for run in runs if run.counts]
    assert len(counted) >= 40 and not any(run.fitted for run in counted)
    assert median_error(runs) <= 0.15
    # One vote a family, however many of its figures are known.
    assert np.median(list(family_errors(runs).values())) <= 0.165


def test_unexplained_share_is_the_fit_to_the_even_half(runs: list[PublishedRun]) -> None:
    found = fit_unexplained(runs)
    assert found.unexplained == pytest.approx(UNEXPLAINED, abs=0.02)
    assert found.log_error == pytest.approx(UNMODELLED_LOG_ERROR, abs=0.03)
    assert found.searched_log_error == pytest.approx(SEARCHED_LOG_ERROR, abs=0.05)


def test_unexplained_share_makes_every_step_longer_and_can_be_left_out() -> None:
    run = published_run("Megatron 22B, full recomputation")
    parts = run.estimate.step.parts
    modelled = sum(v for k, v in parts.items() if k != "unexplained")
    assert float(parts["unexplained"]) == pytest.approx(UNEXPLAINED * float(modelled))


@pytest.mark.published
def test_megatron_step_times_follow_their_kernels(runs: list[PublishedRun]) -> None:
    own = [run for run in runs if run.name.startswith("Megatron ")]
    kernels = [(1.0 + run.error) / (1.0 + UNEXPLAINED) - 1.0 for run in own]
    assert len(own) == 8 and max(map(abs, kernels)) < 0.12


@pytest.mark.published
@pytest.mark.parametrize("name", ["Llama 3.1 405B, whole run", "DeepSeek-V3", "PaLM 540B"])
def test_whole_runs(name: str) -> None:
    assert abs(published_run(name).error) < 0.3


@pytest.mark.published
def test_fastest_layout_is_a_bound(runs: list[PublishedRun]) -> None:
    """On GPUs; the TPUs' figures have no measured kernels."""
    searched = [run for run in runs if run.estimate.searched and "tpu" not in run.hardware]
    assert len(searched) >= 10 and all(run.error < 0.0 for run in searched)
    assert all(run.apart for run in searched)


@pytest.mark.published
def test_half_the_rate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a GPU at half its peak rate must break the comparison."""

    def slow(name: str) -> Hardware:
        hardware = load_hardware(name)
        return hardware.with_fields(
            peak_flop_per_s={k: 0.5 * v for k, v in hardware.peak_flop_per_s.items()})

    monkeypatch.setattr(published, "load_hardware", slow)
    assert median_error(published_runs()) > 0.25


def test_every_run_has_a_source(runs: list[PublishedRun]) -> None:
    assert all(len(run.source) > 20 for run in runs)
    assert len({run.name for run in runs}) == len(runs)


def test_training_csv_is_covered(shared_data: Path, runs: list[PublishedRun]) -> None:
    """Every measured run of the collected table is compared, or is no run of its own."""
    with (shared_data / "published" / "training.csv").open(encoding="utf-8") as file:
        names = [row["model"] for row in csv.DictReader(file)]
    ours = " ".join(run.name for run in runs).lower()
    left_out = ("Epoch estimate", "context extension", "post-training", "total")
    for name in names:
        short = name.replace("Llama 1", "LLaMA").removesuffix(" pre-training").lower()
        assert short in ours or any(part in name for part in left_out), name


def test_command_fails_where_the_error_is_too_large() -> None:
    result = CliRunner().invoke(cli, ["validate", "training", "--most", "0.01", "--json"])
    assert result.exit_code == 1
    assert '"median_error"' in result.output


def test_docs_say_what_the_comparison_says(runs: list[PublishedRun]) -> None:
    """Within a point, so that recalibrated kernels do not break it and drift does."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text("utf-8")
    found = re.search(r"all that count \| (\d+) \| \*\*([\d.]+) %", page)
    assert found and int(found[1]) == sum(run.counts for run in runs)
    assert float(found[2]) / 100 == pytest.approx(median_error(runs), abs=0.02)
