"""The fit of the engines' figures finds what was planted, and widths cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from costsim.validation.silicon_fit import FIGURES, Parts, extra_log_error, fit_engine, surrogate

TRUE = np.array([0.9, 0.7, 1e-5, 2e-5, 5e-5, 1e-3, 2e-5, 0.3, 0.05, 2e-3, 1e-5])


def _parts(rows: int = 400) -> Parts:
    rng = np.random.default_rng(1)
    kernels = rng.uniform(2e-3, 4e-2, rows)
    steps = rng.uniform(100, 1000, rows)
    parts = {
        "kernels_s": kernels, "network_s": kernels * rng.uniform(0.02, 0.3, rows),
        "attention_s": kernels * rng.uniform(0.05, 0.4, rows),
        "layers": rng.choice([32.0, 61.0, 80.0], rows), "experts": rng.choice([0.0, 58.0], rows),
        "running": rng.uniform(1, 256, rows), "extra_s": rng.uniform(0.1, 2.0, rows),
        "steps": steps, "own_s": rng.uniform(0.02, 1.0, rows),
        "looks": rng.choice([1.0, 5.5, 15.5], rows),
        "sync": rng.choice([0.0, 1.0], rows),
        "fp4": rng.choice([0.0, 1.0], rows), "dp": rng.choice([0.0, 1.0], rows),
        "tpot_s": kernels, "ttft_s": kernels,
    }
    tpot, ttft = surrogate(TRUE, Parts(**parts))
    return Parts(**{**parts, "tpot_s": tpot, "ttft_s": ttft})


@pytest.mark.theory
def test_planted_figures_are_found() -> None:
    found = fit_engine(_parts())
    np.testing.assert_allclose([found[name] for name in FIGURES], TRUE, rtol=0.05)


@pytest.mark.theory
def test_width_covers_nine_in_ten() -> None:
    errors = np.random.default_rng(2).normal(0.0, 0.3, 20_000)
    assert extra_log_error(errors, np.full(20_000, 0.1)) == pytest.approx(
        np.sqrt(0.3**2 - 0.1**2), rel=0.03)
    assert extra_log_error(errors, np.full(20_000, 0.4)) == pytest.approx(0.0, abs=1e-6)
