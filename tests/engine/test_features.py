"""What engines add: drafting, adapters, host memory, context ranks, two pools, encoders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from costsim.engine.deployment import Deployment
from costsim.engine.disaggregation import disaggregate, transfer_time
from costsim.engine.encoder import encode
from costsim.engine.extras import adapter_parameters
from costsim.engine.memory import memory_budget
from costsim.engine.settings import EngineSettings, Routing, Speculation
from costsim.engine.steady_state import operating_point
from costsim.engine.step import step_time
from costsim.models.loader import load_model
from costsim.models.multimodal import Images

Serve = Callable[..., Deployment]
DECODE = {"decode_requests": 64, "decode_context": 4000}


@pytest.mark.parametrize("speculation", [
    Speculation("mtp", 1, 0.8), Speculation("eagle", 3, 0.7),
    Speculation("draft_model", 4, 0.7, "llama-3.1-8b")])
def test_drafting_is_part_of_the_step(serve: Serve, speculation: Speculation) -> None:
    plain = step_time(serve("llama-3.1-70b", tp=4), **DECODE)
    ahead = step_time(serve("llama-3.1-70b", tp=4,
                            settings=EngineSettings(speculation=speculation)), **DECODE)
    assert ahead.by_operator["drafting"] > 0
    assert ahead.seconds > plain.seconds
    assert sum(ahead.by_operator.values()) == pytest.approx(float(ahead.seconds))
    assert sum(ahead.by_resource.values()) == pytest.approx(float(ahead.seconds))


@pytest.mark.theory
def test_draft_model_costs_its_own_decode_steps(serve: Serve) -> None:
    drafted = EngineSettings(speculation=Speculation("draft_model", 4, 0.7, "llama-3.1-8b"))
    ahead = step_time(serve("llama-3.1-70b", tp=4, settings=drafted), **DECODE)
    alone = step_time(serve("llama-3.1-8b", tp=4), **DECODE)
    assert ahead.by_operator["drafting"] == pytest.approx(4 * float(alone.seconds), rel=1e-6)


@pytest.mark.theory
def test_verifying_in_a_mixture_touches_more_experts(serve: Serve) -> None:
    shape = {"decode_requests": 4, "decode_context": 1000}
    drafted = EngineSettings(speculation=Speculation("mtp", 3, 0.7))
    plain = step_time(serve("qwen3-30b-a3b"), **shape).by_operator["experts"]
    ahead = step_time(serve("qwen3-30b-a3b", settings=drafted), **shape).by_operator["experts"]
    assert ahead > 1.5 * plain


def test_adapters_cost_memory_and_time(serve: Serve) -> None:
    lora = EngineSettings(lora_rank=16, lora_adapters=8)
    plain, with_lora = serve("llama-3.1-8b"), serve("llama-3.1-8b", settings=lora)
    held = memory_budget(with_lora).weights_bytes - memory_budget(plain).weights_bytes
    # rank 16 beside qkv (4096 -> 6144), o, gate and up (4096 -> 28672), down, 32 layers
    one = 16 * 32 * ((4096 + 6144) + (4096 + 4096) + (4096 + 28672) + (14336 + 4096))
    assert adapter_parameters(load_model("llama-3.1-8b"), 16) == one
    assert held == pytest.approx(8 * one * 2)
    step = step_time(with_lora, **DECODE)
    assert 0 < step.by_operator["lora"] < 0.5 * step.seconds


@pytest.mark.theory
def test_offloaded_weights_wait_for_the_host_link(serve: Serve, h100) -> None:  # type: ignore[no-untyped-def]
    half = EngineSettings(weight_offload_share=0.5)
    step = step_time(serve("llama-3.1-8b", settings=half), decode_requests=1, decode_context=100)
    assert step.seconds == pytest.approx(0.5 * 15e9 / h100.host_bandwidth_bytes_per_s, rel=0.08)
    cache = EngineSettings(kv_offload_share=0.5)
    late = step_time(serve("llama-3.1-8b", settings=cache), **DECODE)
    assert late.seconds == pytest.approx(
        0.5 * 64 * 4000 * 131_072 / h100.host_bandwidth_bytes_per_s, rel=0.01)


def test_context_parallelism_splits_long_decodes(serve: Serve) -> None:
    shape = {"decode_requests": 8, "decode_context": 200_000}
    one = step_time(serve("llama-3.1-70b", tp=4), **shape)
    four = step_time(serve("llama-3.1-70b", tp=4, cp=4), **shape)
    ratio = one.by_operator["attention (decode)"] / four.by_operator["attention (decode)"]
    assert 2.5 < ratio <= 4.2
    assert four.by_operator["context exchange"] > 0
    assert four.seconds < one.seconds


def test_skewed_routing_is_slower_and_replicas_help(serve: Serve) -> None:
    def time(routing: Routing) -> float:
        deployment = serve("deepseek-v3", dp=16, ep=16, settings=EngineSettings(routing=routing))
        return float(step_time(deployment, 16, 4096).by_operator["experts"])

    even, skewed = time(Routing()), time(Routing("power_law", 0.6))
    helped = time(Routing("power_law", 0.6, replicated_experts=32))
    assert even < helped < skewed


@pytest.mark.theory
def test_node_limited_routing_sends_one_copy_to_each_node(serve: Serve) -> None:
    """DeepSeek-V3 on 4 nodes: 16 tokens a rank to at most 4 nodes, not to 8 experts."""
    step = step_time(serve("deepseek-v3", dp=32, ep=32), decode_requests=512, decode_context=100)
    assert step.network_bytes == pytest.approx(58 * 16 * 4 * 7168 * (1 + 2), rel=1e-3)


@pytest.mark.theory
def test_sliced_experts_need_every_token_on_every_rank(serve: Serve) -> None:
    step = step_time(serve("qwen3-30b-a3b", dp=4), decode_requests=64, decode_context=100)
    assert step.network_bytes == pytest.approx(48 * 64 * 2048 * (2 + 2), rel=1e-3)


@pytest.mark.theory
def test_two_pools_are_balanced_and_their_rates_agree(serve: Serve) -> None:
    prefill, decode = serve("llama-3.1-70b", tp=4), serve("llama-3.1-70b", tp=4)
    point = disaggregate(prefill, decode, 4000, 500, np.array([8, 32, 64]))
    read = step_time(prefill, 1, 4000).seconds
    step = step_time(decode, decode_requests=32, decode_context=4250).seconds
    assert point.tpot_s[1] == pytest.approx(float(step))
    assert point.requests_per_s[1] == pytest.approx(0.9 / float(read), rel=1e-9)
    assert np.all(point.decode_busy == pytest.approx(1.0))
    assert point.ttft_s[1] > read
    more = disaggregate(prefill, decode, 4000, 500, 32, prefill_replicas=4, decode_replicas=1)
    assert more.bottleneck == "decode" and more.prefill_busy < 0.9


@pytest.mark.theory
def test_transfer_of_the_cache(serve: Serve, h100) -> None:  # type: ignore[no-untyped-def]
    deployment = serve("llama-3.1-70b", tp=4)
    expected = 4000 * 327_680 / 4 / h100.scale_out.bandwidth_bytes_per_s
    assert transfer_time(deployment, deployment, 4000) == pytest.approx(expected, rel=0.01)
    hidden = disaggregate(deployment, deployment, 4000, 500, 32, overlap=0.9)
    shown = disaggregate(deployment, deployment, 4000, 500, 32)
    assert shown.ttft_s - hidden.ttft_s == pytest.approx(0.9 * float(shown.transfer_s))


def test_pools_of_their_own_keep_tpot_low(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    together = operating_point(deployment, 64, 8000, 200)
    apart = disaggregate(deployment, deployment, 8000, 200, 64)
    assert apart.tpot_s < 0.7 * together.tpot_s


def test_images_become_tokens_and_time(serve: Serve) -> None:
    deployment = serve("qwen3-vl-8b")
    small, large = (encode(deployment, Images(side, side)) for side in (512, 2048))
    assert 0 < small.prompt_tokens < large.prompt_tokens
    assert large.step.seconds > 4 * small.step.seconds
    text = operating_point(deployment, 8, 1000, 100)
    seen = operating_point(deployment, 8, 1000 + large.prompt_tokens, 100, large.step.seconds)
    assert seen.ttft_s > text.ttft_s + large.step.seconds
