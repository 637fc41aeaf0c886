"""Every model of the library, and every config of the measured package, gives an estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.memory import memory_budget
from costsim.engine.steady_state import OperatingPoint, operating_point
from costsim.engine.step import step_time
from costsim.engine.validity import allowed
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model
from costsim.models.count import flop_per_token
from costsim.models.describe import describe
from costsim.models.loader import list_models, load_model

FIGURES = ("ttft_s", "tpot_s", "requests_per_s", "mfu", "mbu", "max_batch", "log_error_tpot")


def estimate(model: Model, hardware: str) -> OperatingPoint:
    """Operating point at three batches on the largest of a few layouts that can be built."""
    degrees = np.array([1, 2, 4, 8])
    tp = int(degrees[np.asarray(allowed(model, Layout(tp=degrees)))].max())
    return operating_point(deploy(model, load_hardware(hardware), Layout(tp=tp)),
                           np.array([1, 16, 128]), 2000, 200)


def assert_sound(point: OperatingPoint, name: str) -> None:
    for figure in FIGURES:
        values = np.asarray(getattr(point, figure), float)
        assert np.all(np.isfinite(values)) and np.all(values >= 0), (name, figure, values)
    # A measured kernel may be slower for one row than for sixteen; more than that would be wrong.
    assert np.all(point.tpot_s[1:] > 0.8 * point.tpot_s[:-1]), name
    assert np.all(np.asarray(point.tpot_s) < 30), name


@pytest.mark.parametrize("hardware", ["h100_sxm", "mi300x", "cpu_generic"])
def test_every_model_of_the_library(hardware: str) -> None:
    for name in list_models():
        point = estimate(load_model(name), hardware)
        if hardware != "cpu_generic":
            assert_sound(point, name)
        assert np.all(np.isfinite(point.output_tokens_per_s))


def test_every_config_of_the_measured_package(silicon: Path) -> None:
    found = 0
    for path in sorted((silicon / "model_configs").glob("*_config.json")):
        if path.name.endswith("_hf_quant_config.json"):
            continue
        model = load_model(path)
        assert_sound(estimate(model, "b200_sxm"), path.name)
        found += 1
    assert found >= 60


def test_every_published_config(shared_data: Path) -> None:
    found = 0
    for path in sorted((shared_data / "model_configs").glob("*.json")):
        model = load_model(path)
        assert_sound(estimate(model, "h200_sxm"), path.name)
        described = describe(model)
        assert described["by_context"] and described["layers"], path.name
        assert list(model.ignored) == described["ignored"], path.name
        found += 1
    assert found >= 80


def test_arithmetic_of_every_model_agrees_with_its_count() -> None:
    """A decode step of one request does what the model's own count says, whatever the family."""
    for name in list_models():
        model = load_model(name)
        step = step_time(deploy(model, load_hardware("h100_sxm")), decode_requests=1,
                         decode_context=1500)
        counted = flop_per_token(model, 1500, absorbed=True)
        assert step.flop == pytest.approx(counted, rel=0.06), name


def test_memory_of_every_model_agrees_with_its_weights() -> None:
    from costsim.models.count import total_parameters

    for name in list_models():
        model = load_model(name)
        held = memory_budget(deploy(model, load_hardware("h100_sxm"))).weights_bytes
        assert 0.4 * total_parameters(model) < held < 2.3 * total_parameters(model), name
