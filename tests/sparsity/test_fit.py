"""Fits of small runs recover what made them, and warn where they cannot be trusted."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from costsim.cli import cli
from costsim.errors import InputError
from costsim.sparsity.compression import compression, compressions
from costsim.sparsity.fit import Runs, fit_runs, judge, read_runs
from costsim.sparsity.forms import LOSS_FORMS, Design
from costsim.sparsity.laws import load_law


def made_runs(form: str, coefficients: dict[str, float], noise: float, seed: int) -> Runs:
    """Runs of 30M to 1B active parameters, dense to 32 experts, as a law would give them."""
    rng = np.random.default_rng(seed)
    active = np.repeat([3e7, 1e8, 3e8, 1e9], 12)
    experts = np.tile(np.repeat([1.0, 4.0, 16.0, 32.0], 3), 4)
    tokens = active * np.tile([10.0, 20.0, 60.0], 16)
    design = Design(active, active * (1 + 0.66 * (experts - 1)), tokens, experts)
    exact = LOSS_FORMS[form](coefficients, design)
    return Runs(design, exact * np.exp(noise * rng.standard_normal(len(exact))))


@pytest.mark.slow
def test_recovers_the_law_that_made_the_runs() -> None:
    law = load_law("ludziejewski")
    runs = made_runs("joint", dict(law.coefficients), 0.002, 1)
    fitted = fit_runs(runs, bootstrap=20)
    planned = Design(8e9, 8e9 * 11, 4e11, 16.0)
    low, high = fitted.interval(planned)
    assert low < law.predict(planned) < high
    assert fitted.predict(planned) == pytest.approx(float(law.predict(planned)), rel=0.04)
    assert fitted.trials[0].heldout_rms < 0.01


@pytest.mark.slow
def test_warns_when_small_runs_favour_the_sparser_model_and_the_large_one_does_not() -> None:
    """Arrakis in miniature: routing's gain shrinks with size (Clark's c > 0, steeper here), so
    that the sparse model leads in every run up to 1B and has lost its lead at 280B."""
    steep = {**load_law("clark_hash").coefficients, "b": -0.16, "c": 0.0155}
    runs = made_runs("routed", steep, 0.002, 2)
    fitted = fit_runs(runs, bootstrap=20)
    small = (Design(1e9, 1e9, 2e10, 1.0), Design(1e9, 11e9, 2e10, 16.0))
    planned = (Design(2.8e11, 2.8e11, 1.3e13, 1.0), Design(2.8e11, 3e12, 1.3e13, 16.0))
    truth_small = [float(LOSS_FORMS["routed"](steep, d)) for d in small]
    truth_large = [float(LOSS_FORMS["routed"](steep, d)) for d in planned]
    assert truth_small[0] - truth_small[1] > 0.05
    assert truth_large[0] - truth_large[1] < 0.01
    verdict = judge(fitted, small, planned)
    assert verdict.small_gain > 0.03
    assert verdict.warnings, "the tool must warn"
    truth = truth_large[0] - truth_large[1]
    assert verdict.planned_low < truth < verdict.planned_high


def test_close_to_the_runs_nothing_is_warned_of() -> None:
    law = load_law("ludziejewski")
    fitted = fit_runs(made_runs("joint", dict(law.coefficients), 0.001, 3), bootstrap=8)
    pair = (Design(1e9, 1e9, 6e10, 1.0), Design(1e9, 11e9, 6e10, 16.0))
    verdict = judge(fitted, pair, pair)
    assert verdict.planned_gain > 0
    assert verdict.warnings == ()


HEADER = "active,total,experts,top_k,granularity,tokens,loss\n"
ROW = "1e8,1e9,16,1,1,2e9,{}\n"


def test_reads_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(HEADER + "".join(ROW.format(3.0 - 0.01 * i) for i in range(8)))
    runs = read_runs(path)
    assert len(runs) == 8
    assert np.all(runs.design.experts == 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("active,total,tokens,los\n", "unknown column 'los'; did you mean 'loss'"),
        ("active,total,tokens\n", "column 'loss' is missing"),
        (HEADER + ROW.format("nan") * 8, "loss = 'nan' must be a positive number"),
        (HEADER + ROW.format("3"), "at least 6"),
        (HEADER + "1e9,1e8,1,1,1,1e9,3\n" * 8, "below active"),
        (HEADER + "1e8,1e9,2,4,1,1e9,3\n" * 8, "above experts"),
    ],
)
def test_bad_runs(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_runs(path)


def test_example_is_what_its_script_writes_and_warns() -> None:
    root = Path(__file__).resolve().parents[2]
    script = runpy.run_path(str(root / "benchmarks" / "simulated_runs.py"))
    path = root / "docs" / "examples" / "simulated_runs.csv"
    assert path.read_text(encoding="utf-8") == script["text"]()
    args = ["sparsity", "fit", str(path), "--active", "280B", "--tokens", "13T",
            "--bootstrap", "4", "--json"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    assert "wins where the runs are and loses at the planned size" in result.output


def test_losses_of_compression_have_sources() -> None:
    for way in compressions():
        assert len(way.source) > 15
        assert way.known == (way.provenance != "unknown")
        if way.added_loss:
            assert way.added_loss[0] <= way.added_loss[1] <= way.added_loss[2]
    # locuslab/wanda, Llama 2 7B: 5.12 to 10.17 is the dearest of 2:4.
    assert compression("2to4").added_loss == pytest.approx((0.503, 0.593, 0.686))
    assert np.log(10.17 / 5.12) == pytest.approx(0.686, abs=0.001)
    with pytest.raises(InputError, match="did you mean 'int4'"):
        compression("int5")
