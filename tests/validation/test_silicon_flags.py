"""The serving flags of the measured points: those of the scripts at the date of the run."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings
from costsim.validation.silicon_flags import benchmark_of, flags_of, with_flags
from costsim.validation.silicon_points import ServingPoint

DEEPSEEK = ServingPoint(
    id="x", engine="trtllm", version="", model="deepseek-ai/DeepSeek-R1", hardware="b200_sxm",
    weights="nvfp4", isl=1024, osl=1024, concurrency=256, layout=Layout(tp=8), prefill=None,
    decode=None, ttft_s=1.0, tpot_s=0.01, repaired=False, fit=True, public=True,
    date=datetime.date(2025, 11, 5))


def _settings(point: ServingPoint, engine: str = "trtllm"):  # type: ignore[no-untyped-def]
    return with_flags(load_settings(engine), point)


def test_token_budget_follows_the_script_of_the_day() -> None:
    """TensorRT-LLM's was a prompt and a token per request; from 2026-01-21 on at least 8192."""
    assert _settings(DEEPSEEK).max_num_batched_tokens == 256 + 1024 + 64
    later = replace(DEEPSEEK, date=datetime.date(2026, 2, 1))
    assert _settings(later).max_num_batched_tokens == 8192
    drafting = replace(later, draft_tokens=3)
    assert _settings(drafting).max_num_batched_tokens == 4 * 256 + 1024 + 64
    assert flags_of(DEEPSEEK)["kv"] == "fp8"


def test_ranks_and_batches_are_held_back_where_the_scripts_say_so() -> None:
    assert _settings(DEEPSEEK).rank_hold_steps == 0
    ranks = replace(DEEPSEEK, layout=Layout(tp=1, dp=8, ep=8))
    assert _settings(ranks).rank_hold_steps == 60
    llama = replace(DEEPSEEK, model="meta-llama/Llama-3.1-70B", weights="fp8")
    assert (_settings(llama).hold_steps, _settings(llama).hold_share) == (20, 0.9)
    assert _settings(llama).max_num_batched_tokens == 16384
    assert _settings(replace(llama, isl=8192)).hold_steps == 0


def test_benchmarks_of_the_sweeps_and_of_the_others() -> None:
    run = benchmark_of(DEEPSEEK)
    assert run.rounds == 10 and run.length_spread == pytest.approx(0.2 / 0.9)
    other = replace(DEEPSEEK, public=False, model="Qwen/Qwen3-32B", engine="vllm")
    assert benchmark_of(other).rounds == 20 and benchmark_of(other).length_spread == 0.0
    settings = _settings(other, "vllm")
    assert settings.max_num_batched_tokens == 1500 + 1024 + 256
    assert not settings.async_scheduling and settings.tokenize_s > 0
