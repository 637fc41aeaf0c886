"""Many steps in one call are the same steps, each by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings
from costsim.engine.search import Found, search
from costsim.engine.settings import EngineSettings, Speculation
from costsim.engine.stacked import stacked_steps
from costsim.engine.steady_state import operating_point
from costsim.engine.step import step_time
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model

# Dense, mixtures of experts, MLA, sparse MLA, sliding windows, state spaces; presets with operators
# of their own and without; one accelerator each with and without fp8.
SEARCHES = [
    ("llama-3.1-8b", "l40s", "vllm", 2), ("qwen3-32b", "h100_sxm", "trtllm", 4),
    ("qwen3-30b-a3b", "h200_sxm", "sglang", 4), ("gpt-oss-120b", "b200_sxm", "vllm", 8),
    ("deepseek-v3", "b200_sxm", "sglang", 8), ("deepseek-v3.2", "h200_sxm", "vllm", 16),
    ("gemma-3-27b", "a100_sxm_80gb", "vllm", 4), ("nemotron-3-nano-30b-a3b", "h100_sxm", "vllm", 2),
]


@pytest.mark.parametrize(("model", "hardware", "engine", "most"), SEARCHES)
def test_a_search_equals_its_points_one_by_one(
    model: str, hardware: str, engine: str, most: int
) -> None:
    found = search(load_model(model), load_hardware(hardware), 3000, 500, most,
                   settings=load_settings(engine))
    for index in np.random.default_rng(2).choice(len(found), 10, replace=False):
        _check(found, int(index))


def _check(found: Found, index: int) -> None:
    one = operating_point(found.at(index), found.batch[index], 3000, 500)
    for figure in ("tpot_s", "ttft_s", "requests_per_s", "output_tokens_per_s_per_accelerator",
                   "log_error_tpot", "log_error_throughput", "max_batch", "input_time_share"):
        assert float(getattr(one, figure)) == pytest.approx(
            getattr(found, figure)[index], rel=1e-11, abs=1e-12), (figure, found.at(index).layout)
    assert str(one.bottleneck) == found.bottleneck[index]


DRAFTING = EngineSettings(speculation=Speculation("mtp", 2, 0.7))
ADAPTERS = replace(EngineSettings(), lora_adapters=20, lora_rank=16)


@pytest.mark.parametrize(("model", "settings"), [
    ("llama-3.1-70b", ADAPTERS), ("deepseek-v3", DRAFTING),
    ("gpt-oss-20b", load_settings("sglang")),
])
def test_flat_steps_equal_single_steps(model: str, settings: EngineSettings) -> None:
    """Every figure of every step, on layouts by batches with many that are alike."""
    layout = Layout(tp=np.array([1, 2, 2, 4])[:, None], pp=np.array([1, 1, 2, 2])[:, None],
                    cp=np.array([1, 1, 1, 2])[:, None])
    whole = deploy(load_model(model), load_hardware("h200_sxm"), layout, settings=settings)
    prompts, decodes = np.array([0.0, 1.0, 2.0, 1.0]), np.array([7.0, 0.0, 64.0, 64.0])
    repeated = np.tile(np.arange(4), 20)
    stacked = stacked_steps(
        whole, prefill_requests=[prompts[repeated], 0.0], prefill_tokens=[512.0, 512.0],
        prefill_context=[100.0, 0.0], decode_requests=[decodes[repeated], repeated + 1.0],
        decode_context=[2000.0, 900.0])
    for row in range(4):
        one = whole.with_changes(layout=Layout(*(
            int(np.ravel(v)[row if np.size(v) > 1 else 0])
            for v in (layout.tp, layout.pp, layout.ep, layout.dp, layout.cp))))
        for column in (0, 1, 42, 79):
            kind = repeated[column]
            _compare(stacked[0], (row, column), one, prompts[kind], 100.0, decodes[kind], 2000.0)
            _compare(stacked[1], (row, column), one, 0.0, 0.0, kind + 1.0, 900.0)


def _compare(
    step: object, place: tuple[int, int], deployment: Deployment, prompts: float, cached: float,
    decodes: float, context: float,
) -> None:
    alone = step_time(deployment, prompts, 512.0, cached, decodes, context)
    for field in ("by_operator", "by_resource"):
        mine, its = getattr(step, field), getattr(alone, field)
        for name in its:
            assert _at(mine[name], place) == pytest.approx(float(its[name]), rel=1e-10, abs=1e-15)
        assert all(_at(mine[name], place) == 0.0 for name in set(mine) - set(its))
    for field in ("seconds", "log_error", "flop", "memory_bytes", "network_bytes"):
        assert _at(getattr(step, field), place) == pytest.approx(
            float(getattr(alone, field)), rel=1e-10), field


def _at(value: object, place: tuple[int, int]) -> float:
    return float(np.broadcast_to(np.asarray(value), (4, 80))[place])
