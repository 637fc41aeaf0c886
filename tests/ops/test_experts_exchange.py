"""Expert kernels behind an exchange of tokens are the engine's own where they were measured."""

from __future__ import annotations

import numpy as np
import pytest

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.settings import EngineSettings
from costsim.engine.step import step_time
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model

SGLANG, VLLM = EngineSettings(name="sglang"), EngineSettings(name="vllm")


def _experts(settings: EngineSettings, layout: Layout, tokens: float) -> float:
    deployment = deploy(load_model("deepseek-v3"), load_hardware("gb200_nvl72"),
                        layout, Precision.uniform("fp8_block", kv="fp8"), settings)
    step = step_time(deployment, decode_requests=tokens, decode_context=1000)
    return float(np.asarray(step.by_operator["experts"])) / 58


def test_against_the_table() -> None:
    """aiconfigurator-core gb200/moe/sglang/0.5.10, wideep_generation_moe: 87 us for 4096 tokens on
    32 ranks with balanced experts, 85 us for 64."""
    wide = Layout(dp=32, ep=32)
    assert _experts(SGLANG, wide, 4096) == pytest.approx(87e-6, rel=0.35)
    assert _experts(SGLANG, wide, 64) == pytest.approx(85e-6, rel=0.35)


def test_only_where_measured_and_exchanged() -> None:
    together = Layout(tp=8, ep=8)
    assert _experts(SGLANG, together, 64) > 0
    deployment = deploy(load_model("deepseek-v3"), load_hardware("gb200_nvl72"),
                        together, Precision.uniform("fp8_block"), SGLANG)
    assert deployment.calibration.exchanged("fp8_block:fp8") is not None
    assert deployment.calibration.for_engine("vllm").exchanged("fp8_block:fp8") is None
    assert deployment.calibration.exchanged("nvfp4:nvfp4") is None


def test_arrays_of_layouts_choose_each_their_own() -> None:
    layouts = Layout(tp=np.array([8, 1]), dp=np.array([1, 8]), ep=np.array([8, 8]))
    deployment = deploy(load_model("deepseek-v3"), load_hardware("gb200_nvl72"),
                        layouts, Precision.uniform("fp8_block", kv="fp8"), SGLANG)
    both = step_time(deployment, decode_requests=256, decode_context=1000)
    alone = [_experts(SGLANG, Layout(tp=8, ep=8), 256), _experts(SGLANG, Layout(dp=8, ep=8), 256)]
    np.testing.assert_allclose(np.asarray(both.by_operator["experts"]) / 58, alone, rtol=1e-9)
