"""Predicted against published training runs."""

from __future__ import annotations

import numpy as np
import pytest

from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.training import published
from costsim.training.published import (
    PublishedRun,
    family_errors,
    median_error,
    published_run,
    published_runs,
    run_names,
)


@pytest.fixture(scope="module")
def runs() -> list[PublishedRun]:
    return published_runs()


@pytest.mark.published
def test_median_error_is_below_15_percent(runs: list[PublishedRun]) -> None:
    counted = [run for run in runs if not run.apart]
    assert len(counted) >= 15
    assert median_error(runs) <= 0.15
    # One vote a training run, however many of its figures are known.
    assert np.median(list(family_errors(runs).values())) <= 0.16


@pytest.mark.published
def test_megatron_step_times(runs: list[PublishedRun]) -> None:
    own = [run for run in runs if run.name.startswith("Megatron")]
    assert len(own) == 8 and max(abs(run.error) for run in own) < 0.12


@pytest.mark.published
@pytest.mark.parametrize("name", ["Llama 3.1 405B, whole run", "DeepSeek-V3", "PaLM 540B"])
def test_whole_runs(name: str) -> None:
    assert abs(published_run(name).error) < 0.2


@pytest.mark.published
def test_fastest_layout_is_a_bound(runs: list[PublishedRun]) -> None:
    searched = [run for run in runs if "searched" in run.layout]
    assert len(searched) >= 5 and all(run.error < 0.0 for run in searched)
    assert all(run.apart for run in searched)


@pytest.mark.published
def test_half_the_rate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a GPU at half its peak rate must break the comparison."""

    def slow(name: str) -> Hardware:
        hardware = load_hardware(name)
        return hardware.with_fields(
            peak_flop_per_s={k: 0.5 * v for k, v in hardware.peak_flop_per_s.items()})

    monkeypatch.setattr(published, "load_hardware", slow)
    own = [published_run(name) for name in run_names() if name.startswith("Megatron")]
    assert median_error(own) > 0.25


def test_every_run_has_a_source(runs: list[PublishedRun]) -> None:
    assert all(len(run.source) > 20 for run in runs)
    assert len({run.name for run in runs}) == len(runs)
