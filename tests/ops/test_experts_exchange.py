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


def _exchange(layout: Layout, hardware: str = "h200_sxm", **step: float) -> float:
    deployment = deploy(load_model("deepseek-v3"), load_hardware(hardware), layout,
                        Precision.uniform("fp8_block"), SGLANG)
    parts = step_time(deployment, **step).by_operator
    return float(np.asarray(parts["expert dispatch"]) + np.asarray(parts["expert combine"])) / 58


def test_exchange_inside_a_node_against_the_tables() -> None:
    """aiconfigurator-core h200_sxm/comm/sglang/0.5.12: 128 tokens a rank by low latency 35 + 68 us;
    1024 by the normal kernels with 20 multiprocessors 156 + 311 us."""
    wide = Layout(dp=8, ep=8)
    decode = _exchange(wide, decode_requests=8 * 128, decode_context=1000)
    assert decode == pytest.approx(103e-6, rel=0.2)
    prompts = _exchange(wide, prefill_requests=8, prefill_tokens=1024)
    assert prompts == pytest.approx(467e-6, rel=0.2)


@pytest.mark.parametrize(("nodes", "seconds"), [(2, 288e-6), (4, 406e-6), (8, 472e-6)])
def test_low_latency_exchange_over_nodes_against_the_tables(nodes: int, seconds: float) -> None:
    """aiconfigurator-core h200_sxm/comm/sglang/0.5.6.post2, 128 tokens a rank: nothing of the
    calibration is fitted to more than one node."""
    found = _exchange(Layout(dp=8 * nodes, ep=8 * nodes), decode_requests=8 * nodes * 128,
                      decode_context=1000)
    assert found == pytest.approx(seconds, rel=0.15)


def test_engines_without_deepep_send_plainly() -> None:
    calibration = deploy(load_model("deepseek-v3"), load_hardware("h200_sxm"), Layout(dp=8, ep=8),
                         Precision.uniform("fp8_block"), VLLM).calibration
    assert calibration.sending("+low_latency") is None
    assert calibration.surface("all_to_all")[0] is calibration.surfaces["all_to_all", "", "nccl"]
