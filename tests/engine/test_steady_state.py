"""The closed loop of continuous batching: conservation, limits, monotony, bad input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.memory import max_batch
from costsim.engine.settings import EngineSettings, Speculation
from costsim.engine.speculation import tokens_per_step
from costsim.engine.steady_state import closed_loop, operating_point
from costsim.engine.step import step_time
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.loader import load_model

Serve = Callable[..., Deployment]
CASES = [("llama-3.1-70b", {"tp": 4}), ("llama-3.1-70b", {"tp": 4, "pp": 2}),
         ("mixtral-8x7b", {"tp": 2}), ("deepseek-v3", {"dp": 16, "ep": 16}),
         ("gpt-oss-120b", {"tp": 2})]


@pytest.mark.theory
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_littles_law_closes_the_loop(serve: Serve, name: str, layout: dict[str, int]) -> None:
    batch = np.array([1.0, 16.0, 128.0])
    point = operating_point(serve(name, **layout), batch, 2000, 300)
    np.testing.assert_allclose(point.requests_per_s * point.e2e_s, batch, rtol=1e-9)
    np.testing.assert_allclose(point.e2e_s, point.ttft_s + 299 * point.tpot_s, rtol=1e-9)
    np.testing.assert_allclose(point.output_tokens_per_s, 300 * point.requests_per_s, rtol=1e-12)


@pytest.mark.theory
@pytest.mark.parametrize(("isl", "osl"), [(1000, 300), (200, 2000), (4000, 40), (100, 3)])
def test_the_loop_is_closed_exactly(serve: Serve, isl: int, osl: int) -> None:
    """b·(1 + TTFT/(n·t)) = B, also where prompts take most of the time."""
    batch = np.array([2.0, 9.0, 33.0, 120.0, 256.0])
    point = operating_point(serve("llama-3.1-8b"), batch, isl, osl)
    held = point.decoding * (1.0 + point.ttft_s / ((osl - 1) * point.tpot_s))
    # Where prompts fill the steps more requests wait than the loop itself holds.
    waits = held > batch * (1.0 + 1e-9)
    assert np.all(waits[:-1] <= waits[1:])
    assert held[~waits] == pytest.approx(batch[~waits], rel=1e-9)
    assert (~waits).sum() >= 2


def test_decoding_and_waiting_requests_make_up_the_batch(serve: Serve) -> None:
    point = operating_point(serve("llama-3.1-8b"), np.array([8.0, 64.0, 256.0]), 2000, 300)
    decoding = point.requests_per_s * 299 * point.tpot_s
    np.testing.assert_allclose(point.decoding, decoding, rtol=2e-3)


@pytest.mark.theory
def test_one_request_alone_is_prefill_then_decode(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    point = operating_point(deployment, 1, 1000, 200)
    decode = step_time(deployment, decode_requests=1, decode_context=1100)
    assert point.tpot_s == pytest.approx(float(decode.seconds), rel=1e-9)
    prefill = step_time(deployment, 1, 1000).seconds
    assert prefill <= point.ttft_s <= 1.3 * prefill


@pytest.mark.theory
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tpot_at_batch_one_is_above_the_weights_alone(serve: Serve, tp: int) -> None:
    point = operating_point(serve("llama-3.1-70b", tp=tp), 1, 100, 100)
    assert point.tpot_s >= 2 * 69.5e9 / (3.35e12 * tp)


@pytest.mark.theory
def test_throughput_is_below_the_machine(serve: Serve) -> None:
    point = operating_point(serve("llama-3.1-8b"), np.array([1, 32, 256, 1024]), 512, 512)
    assert np.all((point.mfu > 0) & (point.mfu < 1) & (point.mbu > 0) & (point.mbu <= 1))
    flop = point.requests_per_s * (512 + 511) * 2 * 7.5e9
    assert np.all(flop < 989e12)


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 400), isl=st.integers(16, 20_000), osl=st.integers(1, 3000),
       tp=st.sampled_from([1, 2, 4, 8]))
def test_more_requests_are_slower_and_more_throughput(
    batch: int, isl: int, osl: int, tp: int
) -> None:
    deployment = deploy(load_model("llama-3.1-8b"), load_hardware("h100_sxm"), Layout(tp=tp),
                        calibration=Calibration.roofline())
    few, many = (operating_point(deployment, b, isl, osl) for b in (batch, 2 * batch))
    assert np.isfinite(few.ttft_s) and few.ttft_s > 0
    assert many.tpot_s >= few.tpot_s * (1 - 1e-6)
    assert many.ttft_s >= few.ttft_s * (1 - 1e-6)
    # Kernels of more rows may fill their last wave less well; docs/engine.md states the size.
    assert many.requests_per_s >= few.requests_per_s * 0.96


@pytest.mark.theory
def test_requests_beyond_a_full_budget_only_wait(serve: Serve) -> None:
    """Prompts fill every step: more requests wait longer, and nothing else changes."""
    full, more, most = (operating_point(serve("llama-3.1-70b", tp=4), b, 8000, 20)
                        for b in (400, 800, 1600))
    assert more.tpot_s == pytest.approx(float(full.tpot_s), rel=2e-3)
    assert most.tpot_s == pytest.approx(float(more.tpot_s), rel=2e-3)
    assert most.requests_per_s == pytest.approx(float(full.requests_per_s), rel=2e-3)
    assert most.e2e_s == pytest.approx(2 * float(more.e2e_s), rel=5e-3)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 400), isl=st.integers(16, 8000), osl=st.integers(2, 2000))
def test_longer_prompts_and_slower_memory_never_help(batch: int, isl: int, osl: int) -> None:
    hardware = load_hardware("h100_sxm")
    bandwidth = float(hardware.memory_bandwidth_bytes_per_s)  # type: ignore[arg-type]
    here = deploy(load_model("qwen3-30b-a3b"), hardware, calibration=Calibration.roofline())
    base = operating_point(here, batch, isl, osl)
    assert operating_point(here, batch, 2 * isl, osl).e2e_s >= base.e2e_s
    slower = here.with_changes(
        hardware=hardware.with_fields(memory_bandwidth_bytes_per_s=0.7 * bandwidth)
    )
    assert operating_point(slower, batch, isl, osl).tpot_s >= base.tpot_s


def test_scalar_call_equals_array_call(serve: Serve) -> None:
    deployment = serve("mixtral-8x7b", tp=4)
    batches, prompts = np.array([1, 9, 200]), np.array([64, 5000, 30_000])
    grid = operating_point(deployment, batches[:, None], prompts, 256)
    for i, batch in enumerate(batches):
        for j, isl in enumerate(prompts):
            one = operating_point(deployment, int(batch), int(isl), 256)
            for name in ("ttft_s", "tpot_s", "requests_per_s", "max_batch", "mfu", "mbu"):
                whole = np.broadcast_to(getattr(grid, name), (3, 3))[i, j]
                assert float(getattr(one, name)) == pytest.approx(float(whole), rel=1e-9), name
            assert str(one.bottleneck) == str(np.broadcast_to(grid.bottleneck, (3, 3))[i, j])


def test_batch_above_the_memory_says_what_fits(serve: Serve) -> None:
    point = operating_point(serve("llama-3.1-70b", tp=4), np.array([8, 4000]), 2000, 500)
    assert point.fits.tolist() == [True, False]
    assert 8 < point.max_batch < 4000


def test_decode_of_a_small_batch_is_memory_bound_and_a_long_prompt_compute_bound(
    serve: Serve,
) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    assert operating_point(deployment, 4, 100, 500).bottleneck == "memory"
    assert operating_point(deployment, 64, 16_000, 8).bottleneck == "compute"


def test_prefix_hits_shorten_the_wait(serve: Serve) -> None:
    warm = EngineSettings(prefix_hit_share=0.8)
    cold = operating_point(serve("llama-3.1-70b", tp=4), 64, 4000, 200)
    hit = operating_point(serve("llama-3.1-70b", tp=4, settings=warm), 64, 4000, 200)
    assert hit.ttft_s < 0.5 * cold.ttft_s
    assert hit.requests_per_s > cold.requests_per_s


def test_prompts_in_steps_of_their_own_hold_up_decodes_more(serve: Serve) -> None:
    apart = EngineSettings(chunked_prefill=False)
    mixed = operating_point(serve("llama-3.1-70b", tp=4), 64, 1000, 200)
    alone = operating_point(serve("llama-3.1-70b", tp=4, settings=apart), 64, 1000, 200)
    assert alone.tpot_s > mixed.tpot_s


@pytest.mark.theory
@pytest.mark.parametrize(("tokens", "accept", "expected"), [
    (1, 0.0, 1.0), (1, 1.0, 2.0), (3, 0.5, 1.875), (4, 0.8, 3.3616)])
def test_tokens_won_by_speculation(tokens: int, accept: float, expected: float) -> None:
    assert tokens_per_step(Speculation("mtp", tokens, accept)) == pytest.approx(expected)


def test_speculation_pays_while_memory_bound(serve: Serve) -> None:
    drafted = EngineSettings(speculation=Speculation("eagle", 3, 0.7))
    plain, ahead = (
        operating_point(serve("llama-3.1-70b", tp=4, settings=s), np.array([1, 2000]), 200, 500)
        for s in (EngineSettings(), drafted)
    )
    gain = plain.tpot_s / ahead.tpot_s
    assert gain[0] > 1.5
    assert gain[1] < gain[0]


@pytest.mark.parametrize("bad", [{"batch": 0}, {"batch": float("nan")}, {"isl": -5},
                                 {"osl": float("inf")}])
def test_bad_numbers_are_refused(serve: Serve, bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be a positive number"):
        operating_point(serve("llama-3.1-8b"), **{"batch": 1, "isl": 10, "osl": 10, **bad})


@pytest.mark.theory
def test_front_end_delays_the_first_token_only(serve: Serve) -> None:
    plain, slow = (operating_point(serve("llama-3.1-8b", settings=s), 1, 500, 100)
                   for s in (EngineSettings(), EngineSettings(frontend_s=0.05)))
    assert slow.ttft_s - plain.ttft_s == pytest.approx(0.05, rel=1e-3)
    assert slow.tpot_s == pytest.approx(float(plain.tpot_s))


@pytest.mark.theory
def test_share_of_time_for_prompts(serve: Serve) -> None:
    one = operating_point(serve("llama-3.1-8b"), 1, 4000, 100)
    assert one.input_time_share == pytest.approx(float(one.ttft_s / one.e2e_s))
    busy = operating_point(serve("llama-3.1-8b"), 64, np.array([100, 8000]), np.array([1000, 2]))
    assert busy.input_time_share[0] < 0.1 < 0.9 < busy.input_time_share[1]


def test_closed_loop_waits_for_memory(serve: Callable[..., Deployment]) -> None:
    """What the memory does not hold waits in front; Little's law over all of it stays."""
    deployment = serve("llama-3.1-70b", tp=4)
    holds = float(max_batch(deployment, 8000.0, 1000.0))
    full, over = (closed_loop(deployment, n, 8000, 1000) for n in (holds, 3.0 * holds))
    assert over.tpot_s == pytest.approx(float(full.tpot_s), rel=1e-9) and not over.fits
    life = over.ttft_s + 999.0 * over.tpot_s
    assert over.requests_per_s * life == pytest.approx(3.0 * holds, rel=1e-6)
    assert over.ttft_s > full.ttft_s + full.e2e_s


def test_polling_seldom_delays_the_first_token_only(serve: Callable[..., Deployment]) -> None:
    often, seldom = (
        operating_point(serve("llama-3.1-70b", tp=8, settings=EngineSettings(poll_steps=n)),
                        8, 1000, 1000) for n in (1, 31))
    waited = float(seldom.ttft_s - often.ttft_s)
    assert waited == pytest.approx(15.0 * float(often.tpot_s), rel=0.05)
    assert seldom.tpot_s == pytest.approx(float(often.tpot_s), rel=0.02)
