"""Weights, cache and what fits, against counted bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from costsim.engine.deployment import Deployment
from costsim.engine.memory import check_fits, max_batch, memory_budget, request_kv_bytes
from costsim.engine.precision import Precision
from costsim.engine.settings import EngineSettings
from costsim.errors import DoesNotFitError
from costsim.models.count import kv_bytes_per_token, total_parameters
from costsim.models.loader import load_model

Serve = Callable[..., Deployment]


@pytest.mark.published
def test_weights_and_cache_of_llama_70b(serve: Serve) -> None:
    budget = memory_budget(serve("llama-3.1-70b", tp=4))
    assert budget.weights_bytes == pytest.approx(2 * 70_553_706_496 / 4, rel=1e-3)
    assert budget.kv_bytes_per_token == 327_680 / 4
    assert budget.kv_capacity_tokens == pytest.approx(
        budget.kv_cache_bytes / budget.kv_bytes_per_token, rel=1e-3
    )


@pytest.mark.published
def test_mla_cache_is_not_sharded_by_tensor_parallelism(serve: Serve) -> None:
    budget = memory_budget(serve("deepseek-v3", tp=16))
    assert budget.kv_bytes_per_token == pytest.approx(70_272)


def test_kv_heads_are_replicated_beyond_their_number(serve: Serve) -> None:
    eight = memory_budget(serve("llama-3.1-8b", tp=8)).kv_bytes_per_token
    sixteen = memory_budget(serve("llama-3.1-8b", tp=16)).kv_bytes_per_token
    assert eight == sixteen == 131_072 / 8


def test_context_parallelism_shards_the_cache(serve: Serve) -> None:
    one = memory_budget(serve("deepseek-v3", tp=8)).kv_bytes_per_token
    two = memory_budget(serve("deepseek-v3", tp=8, cp=2)).kv_bytes_per_token
    assert two == pytest.approx(one / 2)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "mixtral-8x7b", "qwen3-235b-a22b"])
@pytest.mark.parametrize("layout", [{"tp": 2}, {"tp": 4}, {"tp": 2, "pp": 2}])
def test_all_ranks_together_hold_at_least_the_model(
    serve: Serve, name: str, layout: dict[str, int]
) -> None:
    held = memory_budget(serve(name, **layout)).weights_bytes * np.prod(list(layout.values()))
    whole = 2 * total_parameters(load_model(name))
    assert whole * 0.999 <= held <= whole * 1.05


def test_experts_are_spread_over_the_stage(serve: Serve) -> None:
    together = memory_budget(serve("deepseek-v3", dp=32, ep=32)).weights_bytes
    apart = memory_budget(serve("deepseek-v3", dp=16, ep=16)).weights_bytes
    assert apart - together == pytest.approx(58 * 256 * 3 * 7168 * 2048 / 32, rel=0.01)


def test_lower_precision_halves_the_weights(serve: Serve) -> None:
    plain = memory_budget(serve("llama-3.1-70b", tp=4))
    low = memory_budget(serve("llama-3.1-70b", tp=4, precision=Precision.uniform("fp8", kv="fp8")))
    assert low.weights_bytes < 0.53 * plain.weights_bytes
    assert low.kv_bytes_per_token == plain.kv_bytes_per_token / 2


def test_memory_rules_differ_as_the_engines_do(serve: Serve) -> None:
    cache = {
        rule: memory_budget(serve("llama-3.1-8b", settings=EngineSettings(
            memory_rule=rule, memory_utilization=0.9))).kv_cache_bytes
        for rule in ("total", "static", "free")
    }
    budget = memory_budget(serve("llama-3.1-8b"))
    room = budget.capacity_bytes - budget.weights_bytes
    assert cache["total"] == pytest.approx(
        0.9 * budget.capacity_bytes - budget.weights_bytes - budget.activation_bytes
    )
    assert cache["free"] == pytest.approx(0.9 * (room - budget.activation_bytes))
    assert cache["static"] >= cache["total"]


def test_max_batch_fills_the_cache_and_no_more(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    room = memory_budget(deployment).kv_cache_bytes
    most = max_batch(deployment, 4000, 1000)
    assert most * request_kv_bytes(deployment, 4500) <= room
    assert (most + 40) * request_kv_bytes(deployment, 5000) > room
    assert max_batch(deployment, 5000) == np.floor(room / request_kv_bytes(deployment, 5000))


def test_windows_and_states_bound_what_a_request_keeps(serve: Serve) -> None:
    hybrid = serve("qwen3-next-80b-a3b", tp=4)
    budget = memory_budget(hybrid)
    assert budget.request_bytes > 0
    grown = request_kv_bytes(hybrid, 32_000) - request_kv_bytes(hybrid, 16_000)
    assert grown == pytest.approx(16_000 * budget.kv_bytes_per_token)
    assert budget.kv_bytes_per_token * 4 < kv_bytes_per_token(load_model("qwen3-32b"))


def test_model_that_does_not_fit_is_refused_in_one_line(serve: Serve) -> None:
    with pytest.raises(DoesNotFitError, match=r"llama-3.1-405b .* does not fit.*GB") as caught:
        check_fits(serve("llama-3.1-405b", tp=8))
    assert "\n" not in str(caught.value)
    check_fits(serve("llama-3.1-70b", tp=4), context=100_000)
    with pytest.raises(DoesNotFitError, match="request of 10000000 tokens"):
        check_fits(serve("llama-3.1-70b", tp=4), context=10_000_000)


def test_arrays_mask_and_do_not_raise(serve: Serve) -> None:
    budget = memory_budget(serve("llama-3.1-70b", tp=np.array([1, 2, 4, 8])))
    assert budget.fits.tolist() == [False, False, True, True] or budget.fits.tolist() == [
        False, True, True, True]
    assert np.all(budget.kv_capacity_tokens[~budget.fits] == 0)


def test_offload_frees_memory(serve: Serve) -> None:
    half = EngineSettings(weight_offload_share=0.5)
    assert memory_budget(serve("llama-3.1-70b", tp=1, settings=half)).weights_bytes < 75e9
    more = EngineSettings(kv_offload_share=0.5)
    plain = memory_budget(serve("llama-3.1-8b")).kv_capacity_tokens
    both = memory_budget(serve("llama-3.1-8b", settings=more)).kv_capacity_tokens
    assert both == pytest.approx(2 * plain, rel=1e-3)
