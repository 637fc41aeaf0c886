"""Time of a step: hand-computed work, sums of the breakdowns, limits, arrays against numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.settings import EngineSettings
from costsim.engine.step import step_time
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.count import flop_per_token
from costsim.models.loader import load_model

Serve = Callable[..., Deployment]
FAMILIES = [
    ("llama-3.1-70b", {"tp": 4}), ("llama-3.1-70b", {"tp": 4, "pp": 2}),
    ("mixtral-8x7b", {"tp": 2}), ("deepseek-v3", {"tp": 8, "ep": 8}),
    ("deepseek-v3", {"dp": 16, "ep": 16}), ("gpt-oss-120b", {"tp": 2}),
    ("qwen3-next-80b-a3b", {"tp": 4}), ("nemotron-h-56b", {"tp": 4}),
    ("deepseek-v3.2", {"tp": 8, "dp": 2, "ep": 16}), ("gemma-3-27b", {"tp": 2}),
]


@pytest.mark.theory
def test_decode_work_of_llama_2_7b_by_hand(serve: Serve) -> None:
    """32 layers of 4·d² + 3·d·f weights, 32 KV heads of 128, head of d·V, bf16."""
    batch, context, d, f, vocabulary = 8, 1000, 4096, 11008, 32000
    step = step_time(serve("llama-2-7b"), decode_requests=batch, decode_context=context)
    weights = 32 * (4 * d * d + 3 * d * f) + d * vocabulary
    attention = 32 * 4 * d * context
    assert step.flop == pytest.approx(batch * (2 * weights + attention), rel=1e-9)
    cache = 32 * 2 * d * 2 * context * batch
    assert step.memory_bytes > 2 * weights + cache
    assert step.memory_bytes == pytest.approx(2 * weights + cache, rel=0.05)


@pytest.mark.theory
def test_prefill_work_of_llama_2_7b_by_hand(serve: Serve) -> None:
    """The causal half of q² pairs, and the LM head for the last token only."""
    q, d, f, vocabulary = 512, 4096, 11008, 32000
    step = step_time(serve("llama-2-7b"), prefill_requests=1, prefill_tokens=q)
    linear = 2 * q * 32 * (4 * d * d + 3 * d * f)
    attention = 32 * 4 * d * q * (q + 1) / 2
    assert step.flop == pytest.approx(linear + attention + 2 * d * vocabulary, rel=1e-9)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "gpt-oss-20b", "gemma-3-27b"])
def test_decode_flop_agrees_with_the_count_of_the_model(serve: Serve, name: str) -> None:
    model, context = load_model(name), 3000
    step = step_time(serve(name), decode_requests=1, decode_context=context)
    assert step.flop == pytest.approx(flop_per_token(model, context), rel=0.02)


@pytest.mark.parametrize(("name", "layout"), FAMILIES)
def test_breakdowns_add_up(serve: Serve, name: str, layout: dict[str, int]) -> None:
    step = step_time(serve(name, **layout), 2, 700, 100, np.array([1, 16, 300]), 2000)
    assert np.all(step.seconds > 0)
    np.testing.assert_allclose(sum(step.by_operator.values()), step.seconds, rtol=1e-9)
    np.testing.assert_allclose(sum(step.by_resource.values()), step.seconds, rtol=1e-9)
    assert all(np.all(np.asarray(v) >= -1e-15) for v in step.by_resource.values())
    assert np.all((step.log_error > 0) & (step.log_error < 1))


@pytest.mark.parametrize(("name", "layout"), FAMILIES)
def test_scalar_call_equals_array_call(serve: Serve, name: str, layout: dict[str, int]) -> None:
    deployment = serve(name, **layout)
    batches, contexts = np.array([1, 7, 64]), np.array([100, 5000])
    grid = step_time(deployment, decode_requests=batches[:, None], decode_context=contexts)
    for i, batch in enumerate(batches):
        for j, context in enumerate(contexts):
            one = step_time(deployment, decode_requests=batch, decode_context=context)
            assert float(one.seconds) == pytest.approx(float(grid.seconds[i, j]), rel=1e-12)


def test_layouts_and_hardware_broadcast(serve: Serve, h100) -> None:  # type: ignore[no-untyped-def]
    degrees = np.array([1, 2, 4, 8])
    faster = h100.with_fields(memory_bandwidth_bytes_per_s=np.array([[2e12], [3.35e12]]))
    grid = step_time(serve("llama-3.1-70b", hardware=faster, tp=degrees),
                     decode_requests=16, decode_context=1000)
    assert grid.seconds.shape == (2, 4)
    one = step_time(serve("llama-3.1-70b", hardware=h100.with_fields(
        memory_bandwidth_bytes_per_s=3.35e12), tp=4), decode_requests=16, decode_context=1000)
    assert float(one.seconds) == pytest.approx(grid.seconds[1, 2], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 512), context=st.integers(1, 100_000),
       tp=st.sampled_from([1, 2, 4, 8]), more=st.integers(1, 64))
def test_monotone_in_batch_context_and_bandwidth(
    batch: int, context: int, tp: int, more: int
) -> None:
    hardware, model = load_hardware("h100_sxm"), load_model("llama-3.1-8b")
    bandwidth = float(hardware.memory_bandwidth_bytes_per_s)  # type: ignore[arg-type]
    here = deploy(model, hardware, Layout(tp=tp), calibration=Calibration.roofline())
    base = step_time(here, decode_requests=batch, decode_context=context).seconds
    assert step_time(here, decode_requests=batch + more, decode_context=context).seconds >= base
    assert step_time(here, decode_requests=batch, decode_context=context + more).seconds >= base
    faster = here.with_changes(
        hardware=hardware.with_fields(memory_bandwidth_bytes_per_s=1.5 * bandwidth)
    )
    assert step_time(faster, decode_requests=batch, decode_context=context).seconds <= base


@pytest.mark.theory
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_decode_is_never_faster_than_reading_the_weights(serve: Serve, tp: int) -> None:
    deployment = serve("llama-3.1-70b", tp=tp)
    read = 2 * 70.55e9 / (3.35e12 * tp) * 0.98
    assert step_time(deployment, decode_requests=1, decode_context=1).seconds >= read


@pytest.mark.theory
@pytest.mark.parametrize("tokens", [128, 2048, 8192])
def test_prefill_is_never_faster_than_the_peak(serve: Serve, tokens: int) -> None:
    step = step_time(serve("llama-3.1-8b"), prefill_requests=1, prefill_tokens=tokens)
    assert step.seconds >= step.flop / 989e12


def test_mixed_step_is_cheaper_than_two_steps(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    mixed = step_time(deployment, 1, 512, 0, 64, 2000).seconds
    alone = step_time(deployment, 1, 512).seconds
    decode = step_time(deployment, decode_requests=64, decode_context=2000).seconds
    assert max(alone, decode) < mixed < alone + decode


def test_two_all_reduces_per_layer(serve: Serve) -> None:
    batch, tp = 32, 4
    step = step_time(serve("llama-3.1-70b", tp=tp), decode_requests=batch, decode_context=100)
    message = batch * 8192 * 2
    gathered = batch * 128256 * 2
    assert step.network_bytes == pytest.approx(80 * 2 * message + gathered)
    assert "all-reduce" not in step_time(
        serve("llama-3.1-8b"), decode_requests=1, decode_context=1
    ).by_operator


def test_sequence_parallelism_replaces_the_all_reduce(serve: Serve) -> None:
    step = step_time(serve("llama-3.1-70b", tp=4, sequence_parallel=True), 1, 4096)
    assert "all-reduce" not in step.by_operator
    assert {"reduce-scatter", "all-gather"} <= set(step.by_operator)


def test_expert_parallel_ranks_exchange_tokens(serve: Serve) -> None:
    step = step_time(serve("deepseek-v3", dp=8, ep=8), decode_requests=128, decode_context=1000)
    # 58 MoE layers, 16 tokens a rank to 8 experts each, 7168 wide, fp8 there and bf16 back.
    sent = 58 * 16 * 8 * 7168 * (1 + 2)
    assert step.network_bytes == pytest.approx(sent, rel=1e-3)


def test_window_bounds_the_cache_that_is_read(serve: Serve) -> None:
    near, far = (step_time(serve("mistral-7b"), decode_requests=64, decode_context=c).memory_bytes
                 for c in (4096, 32768))
    full = step_time(serve("llama-3.1-8b"), decode_requests=64, decode_context=32768).memory_bytes
    model = load_model("mistral-7b")
    if any(getattr(k.mixer, "window", 0) for k in model.layers):
        assert far == pytest.approx(near)
    assert full > far or not any(getattr(k.mixer, "window", 0) for k in model.layers)
    short, long = (step_time(serve("gemma-3-27b"), decode_requests=64, decode_context=c)
                   .memory_bytes for c in (1024, 65536))
    assert long < 64 * short


def test_overlap_hides_network_but_not_more_than_there_is(serve: Serve) -> None:
    shape = {"decode_requests": 256, "decode_context": 1000}
    plain = step_time(serve("llama-3.1-70b", tp=8), **shape)
    half = step_time(serve("llama-3.1-70b", tp=8,
                           settings=EngineSettings(overlap_communication=0.5)), **shape)
    network = plain.by_operator["all-reduce"] + plain.by_operator["all-gather"]
    assert plain.seconds - half.seconds == pytest.approx(0.5 * network)
    assert sum(half.by_operator.values()) == pytest.approx(half.seconds)
    assert sum(half.by_resource.values()) == pytest.approx(half.seconds)


def test_without_cuda_graphs_small_steps_wait_for_launches(serve: Serve) -> None:
    slow = EngineSettings(cuda_graphs=False, kernel_launch_s=5e-5)
    shape = {"decode_requests": 1, "decode_context": 10}
    late = step_time(serve("llama-3.1-8b", settings=slow), **shape)
    assert late.by_operator["kernel launches"] > 0
    assert late.seconds > step_time(serve("llama-3.1-8b"), **shape).seconds


def test_nothing_to_do_takes_no_time(serve: Serve) -> None:
    assert step_time(serve("llama-3.1-8b")).seconds == 0.0


@pytest.mark.theory
def test_captured_decodes_and_gaps(serve: Serve) -> None:
    """The factor is the decode graph's alone, and not of attention; gaps count per layer."""
    plain = serve("deepseek-v3", tp=8, ep=8)
    changed = serve("deepseek-v3", tp=8, ep=8, settings=EngineSettings(
        kernel_time_factor=0.5, kernel_time_factor_fp4=0.25, layer_gap_s=1e-5, expert_gap_s=2e-5))
    gaps = 61e-5 + 58 * 2e-5
    decode = {"decode_requests": 8, "decode_context": 1000}
    prompt = {"prefill_requests": 1, "prefill_tokens": 1000}
    for hardware, factor in (("h100_sxm", 0.5), ("b200_sxm", 0.25)):
        one, other = (step_time(d.with_changes(hardware=load_hardware(hardware)), **decode)
                      for d in (plain, changed))
        attention = one.by_operator["attention (decode)"]
        captured = factor * (one.seconds - attention) + attention
        assert other.seconds == pytest.approx(captured + gaps, rel=1e-9)
        assert sum(other.by_resource.values()) == pytest.approx(other.seconds, rel=1e-9)
    one, other = (step_time(d, **prompt).seconds for d in (plain, changed))
    assert other == pytest.approx(one + gaps, rel=1e-9)


@pytest.mark.theory
def test_exchange_gap_is_that_of_data_parallel_attention(serve: Serve) -> None:
    waits = EngineSettings(exchange_gap_s=1e-4)
    for layout, layers in (({"tp": 8, "ep": 8}, 0), ({"dp": 8, "ep": 8}, 58)):
        plain, other = (serve("deepseek-v3", settings=s, **layout) for s in (None, waits))
        one, two = (step_time(d, decode_requests=64, decode_context=500).seconds
                    for d in (plain, other))
        assert two - one == pytest.approx(layers * 1e-4, abs=1e-12)


@pytest.mark.theory
def test_shared_experts_beside_the_routed_ones(serve: Serve) -> None:
    """Shared experts are shorter than routed ones here: all of them are hidden, in decodes."""
    beside = EngineSettings(parallel_shared_experts=True)
    plain, hidden = (serve("deepseek-v3", tp=8, ep=8, settings=s) for s in (None, beside))
    one, other = (step_time(d, decode_requests=64, decode_context=1000) for d in (plain, hidden))
    shared = sum(v for k, v in one.by_operator.items() if k.startswith("shared expert"))
    assert shared > 0
    assert other.seconds == pytest.approx(one.seconds - shared, rel=1e-9)
    assert sum(other.by_resource.values()) == pytest.approx(other.seconds, rel=1e-9)
    one, other = (step_time(d, 1, 1000) for d in (plain, hidden))
    assert other.seconds == pytest.approx(one.seconds, rel=1e-12)
