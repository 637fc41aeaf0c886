"""Attribution adds up, limits hold, elasticities point the right way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from costsim.engine.deployment import Deployment
from costsim.engine.explain import explain
from costsim.engine.settings import EngineSettings
from costsim.errors import InputError

Serve = Callable[..., Deployment]
CASES = [("llama-3.1-70b", {"tp": 4}, 64), ("llama-3.1-8b", {}, 1), ("mixtral-8x7b", {"tp": 2}, 32),
         ("deepseek-v3", {"dp": 16, "ep": 16}, 512), ("llama-3.1-70b", {"tp": 4, "pp": 2}, 64)]


@pytest.mark.parametrize(("name", "layout", "batch"), CASES)
def test_parts_add_up_and_are_not_negative(
    serve: Serve, name: str, layout: dict[str, int], batch: int
) -> None:
    found = explain(serve(name, **layout), batch, 2000, 300)
    assert sum(found.parts.values()) == pytest.approx(found.seconds_per_token, rel=1e-9)
    assert all(value >= -1e-12 for value in found.parts.values())
    assert found.distance >= 1.0
    assert 0 < found.mfu < 1 and 0 < found.mbu <= 1
    assert (found.parts["communication"] > 0) == (layout != {})
    assert (found.parts["imbalance"] > 0) == ("ep" in layout)


def test_small_batch_follows_the_memory_and_long_prompts_the_peak(serve: Serve) -> None:
    decode = explain(serve("llama-3.1-70b", tp=4), 1, 100, 500).elasticities
    assert decode["hardware.memory_bandwidth"] < -0.7
    assert next(iter(decode)) in ("hardware.memory_bandwidth", "load.osl", "model.layers")
    assert decode["load.osl"] == pytest.approx(1.0, abs=0.05)
    prompt = explain(serve("llama-3.1-70b", tp=4), 64, 16_000, 8).elasticities
    assert prompt["hardware.peak_flop_per_s"] < -0.6
    assert prompt["load.isl"] > 0.8


@pytest.mark.theory
def test_elasticities_to_all_rates_together_are_one(serve: Serve) -> None:
    """Twice the peak, the bandwidth and the links is half the time, but for fixed launches."""
    found = explain(serve("llama-3.1-70b", tp=4), 64, 4000, 300)
    rates = sum(found.elasticities.get(f"hardware.{name}", 0.0) for name in (
        "peak_flop_per_s", "memory_bandwidth", "scale_up.bandwidth", "scale_out.bandwidth"))
    assert -1.0 <= rates < -0.85


@pytest.mark.theory
def test_stages_without_a_request_are_idle(serve: Serve) -> None:
    """One request in a pipeline of four: each stage works a quarter of the time."""
    alone = explain(serve("llama-3.1-70b", tp=2, pp=4), 1, 1000, 300)
    assert alone.parts["idle"] == pytest.approx(0.75 * alone.predicted_s, rel=1e-6)
    full = explain(serve("llama-3.1-70b", tp=2, pp=4), 64, 1000, 300)
    assert full.parts["idle"] == 0.0
    slow = EngineSettings(frontend_s=0.5)
    waiting = explain(serve("llama-3.1-8b", settings=slow), 1, 1000, 100)
    assert waiting.parts["idle"] == pytest.approx(0.5 / 100, rel=1e-6)


def test_sparse_models_have_expert_fields(serve: Serve) -> None:
    found = explain(serve("mixtral-8x7b", tp=2), 16, 1000, 300).elasticities
    assert found["model.expert_width"] > 0.3
    assert "model.ffn.width" not in found


def test_measured_result_leaves_an_unexplained_part(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    predicted = explain(deployment, 64, 1000, 500)
    slow = explain(deployment, 64, 1000, 500, 0.5 / predicted.predicted_s)
    assert slow.parts["unexplained"] == pytest.approx(predicted.predicted_s)
    assert sum(slow.parts.values()) == pytest.approx(slow.seconds_per_token)
    assert slow.mfu == pytest.approx(predicted.mfu / 2)
    assert slow.within_interval is False
    assert explain(deployment, 64, 1000, 500, 0.98 / predicted.predicted_s).within_interval


def test_measured_nonsense_is_refused(serve: Serve) -> None:
    with pytest.raises(InputError, match="measured tokens per second"):
        explain(serve("llama-3.1-8b"), 1, 10, 10, -3.0)
