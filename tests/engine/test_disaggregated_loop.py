"""Two pools under a fixed number of requests in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from costsim.engine.benchmark import Benchmark
from costsim.engine.deployment import Deployment
from costsim.engine.disaggregated_loop import DisaggregatedLoop, disaggregated_loop
from costsim.engine.settings import EngineSettings, Speculation
from costsim.engine.step import step_time

Serve = Callable[..., Deployment]
LOADS = np.array([1.0, 4.0, 32.0, 128.0, 512.0])


@pytest.fixture(scope="module")
def pools(serve: Serve) -> tuple[Deployment, Deployment]:
    return serve("llama-3.1-70b", tp=4), serve("llama-3.1-70b", tp=8)


def _loop(pools: tuple[Deployment, Deployment], **changes: Any) -> DisaggregatedLoop:
    options = {"isl": 2000, "osl": 500, "in_flight": LOADS, "prefill_replicas": 2} | changes
    return disaggregated_loop(*pools, **options)


def test_littles_law(pools: tuple[Deployment, Deployment]) -> None:
    found = _loop(pools)
    life = found.ttft_s + 499.0 * found.tpot_s
    np.testing.assert_allclose(found.requests_per_s * life, LOADS, rtol=1e-9)
    decoding = found.requests_per_s * 499.0 * found.tpot_s
    np.testing.assert_allclose(decoding, found.decoding, rtol=0.02)


def test_one_request_runs_alone(pools: tuple[Deployment, Deployment]) -> None:
    """With one in flight nothing waits: the decode step is that of a batch of one."""
    found = _loop(pools, in_flight=1.0)
    alone = step_time(pools[1], decode_requests=1, decode_context=2250)
    assert found.tpot_s == pytest.approx(float(alone.seconds), rel=1e-6)


def test_more_requests_take_longer_and_more_is_done(
    pools: tuple[Deployment, Deployment],
) -> None:
    found = _loop(pools)
    assert np.all(np.diff(found.requests_per_s) > 0)
    assert np.all(np.diff(found.tpot_s) >= 0) and np.all(np.diff(found.ttft_s) > -1e-9)


def test_a_slow_prefill_pool_starves_the_decodes(pools: tuple[Deployment, Deployment]) -> None:
    found = _loop(pools, isl=8000, osl=50, in_flight=256.0, prefill_replicas=1, decode_replicas=4)
    assert found.prefill_busy == pytest.approx(0.99, abs=0.02)
    assert found.decoding < 0.2 * 256
    assert found.ttft_s > 10 * found.tpot_s * 49 / 256


def test_requests_wait_for_slots(pools: tuple[Deployment, Deployment]) -> None:
    """Sixteen slots for twenty requests: the wait is what Little's law leaves."""
    found = _loop(pools, in_flight=20.0, decode_slots=16)
    assert found.slots_full and found.decoding == pytest.approx(16.0, rel=1e-3)
    life = 499.0 * found.tpot_s
    assert found.ttft_s == pytest.approx(life * (20.0 / 16.0 - 1.0), rel=0.02)


def test_drafting_gains_tokens(serve: Serve) -> None:
    prefill = serve("deepseek-v3", tp=8, ep=8)
    plain = serve("deepseek-v3", tp=8, ep=8)
    drafting = serve("deepseek-v3", tp=8, ep=8, settings=EngineSettings(
        speculation=Speculation("mtp", 3, 0.6)))
    loads = {"isl": 1000, "osl": 1000, "in_flight": 4.0}
    one, other = (disaggregated_loop(prefill, d, **loads) for d in (plain, drafting))
    assert 1.0 < one.tpot_s / other.tpot_s < 2.2


def test_a_burst_waits_for_the_prefill_pool(pools: tuple[Deployment, Deployment]) -> None:
    """One round: every prompt arrives at once, and half of the others stand in front of it."""
    loads = {"osl": 2000, "in_flight": 64.0}
    stream, burst = _loop(pools, **loads), _loop(pools, run=Benchmark(1), **loads)
    capacity = float(stream.requests_per_s / stream.prefill_busy)
    assert float(burst.ttft_s) == pytest.approx(0.5 * 64 / capacity, rel=0.15)
    ten = _loop(pools, run=Benchmark(10, 0.2), **loads)
    assert stream.ttft_s < ten.ttft_s < burst.ttft_s


def test_errors_of_pools_and_drafting() -> None:
    settings = EngineSettings(log_error_tpot=0.1, log_error_ttft=0.3, log_error_pools_tpot=0.4,
                              log_error_drafting=0.3, speculation=Speculation("mtp", 1, 0.6))
    assert settings.log_errors() == pytest.approx((np.hypot(0.1, 0.3), 0.3))
    assert settings.log_errors(pools=True) == pytest.approx((0.5, 0.3))
