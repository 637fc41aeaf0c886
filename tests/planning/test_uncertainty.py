"""Draws, intervals and Sobol indices against closed forms; plans that hold in 95 % of the draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import costsim
from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.planning.distributions import (
    KINDS,
    Distribution,
    draw,
    from_table,
    lognormal,
    sobol_shares,
)
from costsim.planning.executor import ProcessExecutor
from costsim.planning.plan import Plan, plan
from costsim.planning.uncertainty import point_inputs, robust_plan, study_plan, study_point
from costsim.planning.uncertainty_plan import plan_inputs, plan_model

FIXED = Distribution("fixed", mode=1.0)
PRICES = {"h100_sxm": {"on_demand": 3.0, "reserved_3y": 1.5}}


@pytest.mark.theory
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "fixed"])
def test_quantiles_are_those_of_scipy(kind: str) -> None:
    low, high, mode = 0.5, 2.0, 0.8
    z = stats.norm.ppf(0.95)
    reference: dict[str, Any] = {
        "uniform": stats.uniform(low, high - low), "loguniform": stats.loguniform(low, high),
        "normal": stats.norm((low + high) / 2, (high - low) / 2 / z),
        "lognormal": stats.lognorm(math.log(high / low) / 2 / z, scale=math.sqrt(low * high)),
        "triangular": stats.triang((mode - low) / (high - low), low, high - low),
    }  # fmt: skip
    shares = np.linspace(0.01, 0.99, 37)
    found = Distribution(kind, low, high, mode).ppf(shares)
    assert np.allclose(found, reference[kind].ppf(shares))


@pytest.mark.theory
def test_draws_have_the_moments_of_their_distributions() -> None:
    drawn = draw({"a": Distribution("uniform", 0, 1), "b": lognormal(0.2)}, 4096, seed=3)
    assert drawn["a"].mean() == pytest.approx(0.5, abs=1e-3)
    assert np.log(drawn["b"]).std() == pytest.approx(0.2, rel=0.01)
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.01
    again = draw({"a": Distribution("uniform", 0, 1), "b": lognormal(0.2)}, 4096, seed=3)
    assert np.array_equal(drawn["a"], again["a"])


@pytest.mark.theory
def test_sobol_indices_of_a_sum() -> None:
    """The share of c_i·x_i in the variance of a sum is c_i² over the sum of squares."""
    inputs = {n: Distribution("uniform", 0, 1) for n in "abc"} | {"d": FIXED}
    found = sobol_shares(lambda d: 1 * d["a"] + 2 * d["b"] + 3 * d["c"] + d["d"], inputs, 1024)
    assert set(found) == {"a", "b", "c"}
    for name, weight in zip("abc", (1, 4, 9), strict=True):
        first, total = found[name]
        assert first == pytest.approx(weight / 14, abs=0.02)
        assert total == pytest.approx(weight / 14, abs=0.02)


@pytest.mark.theory
def test_sobol_indices_of_a_product_show_interaction() -> None:
    inputs = {n: Distribution("uniform", -1, 1) for n in "ab"}
    found = sobol_shares(lambda d: d["a"] * d["b"], inputs, 1024)
    assert abs(found["a"][0]) < 0.05 and found["a"][1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(3, "fixed"), ([1, 2], "uniform"), ({"kind": "lognormal", "low": 1, "high": 2}, "lognormal")],
)
def test_ranges_and_distributions_from_tables(value: Any, kind: str) -> None:
    assert from_table(value, "x").kind == kind


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([2, 1], "must be below"), ({"kind": "lognormal", "low": 0, "high": 1}, "above zero"),
        ({"kind": "unifrm", "low": 0, "high": 1}, "did you mean 'uniform'"),
        ({"lo": 1}, "a number"), (True, "a number"), ([1, math.nan], "finite"),
        ({"kind": "triangular", "low": 0, "high": 1, "mode": 2}, "outside its bounds"),
    ],
)  # fmt: skip
def test_bad_ranges_are_one_line(value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_table(value, "growth")


@pytest.fixture(scope="module")
def planned() -> Plan:
    rates = 60.0 * (0.6 + 0.4 * np.sin(np.arange(24) / 24 * 2 * np.pi))
    return plan("llama-3.1-8b", ["h100_sxm"], traffic=rates, isl=800, osl=150, prices=PRICES,
                target=costsim.Target(ttft_p99_s=1.0, tpot_p99_s=0.03), check=False,
                compare=False, disaggregated=False)  # fmt: skip


def test_without_uncertainty_the_plan_holds_at_its_cost(planned: Plan) -> None:
    certain = dict.fromkeys(plan_inputs(planned), FIXED)
    study = study_plan(planned, draws=16, inputs=certain)
    assert study.holds == 1.0 and study.sobol == {}
    assert study.usd_per_month[0] == pytest.approx(planned.usd_per_month, rel=1e-3)
    assert study.usd_per_query[0] == pytest.approx(study.usd_per_query[1])


@pytest.mark.theory
def test_probability_is_that_of_the_growth_alone(planned: Plan) -> None:
    """With growth the only unknown, the plan holds as long as growth stays below its headroom."""
    growth = Distribution("lognormal", 0.7, 1.5)
    inputs = dict.fromkeys(plan_inputs(planned), FIXED) | {"traffic growth": growth}
    model = plan_model(planned)
    at_one = {n: np.ones(1) for n in model.inputs}
    headroom = 1.0 / float(model.outcome(at_one).need[0])
    z = math.log(1.5 / 0.7) / 2 / stats.norm.ppf(0.95)
    expected = stats.lognorm(z, scale=math.sqrt(0.7 * 1.5)).cdf(headroom)
    assert study_plan(planned, draws=8192, inputs=inputs).holds == pytest.approx(expected, abs=5e-3)


def test_own_distributions_replace_the_usual_ones(planned: Plan) -> None:
    growth = Distribution("uniform", 1.0, 1.4)
    options = replace(planned.options, uncertain={"traffic_growth": growth})
    assert plan_inputs(replace(planned, options=options))["traffic growth"] == growth
    wrong = replace(planned.options, uncertain={"trafic growth": growth})
    with pytest.raises(InputError, match="did you mean 'traffic_growth'"):
        plan_inputs(replace(planned, options=wrong))


@given(st.floats(0.5, 1.0))
def test_cost_scales_with_the_price(planned: Plan, factor: float) -> None:
    model = plan_model(planned)
    base = {n: np.ones(1) for n in model.inputs}
    scaled = base | {n: np.full(1, factor) for n in model.inputs if n.startswith("price")}
    assert model.outcome(scaled).usd[0] == pytest.approx(factor * model.outcome(base).usd[0])


def test_a_robust_plan_holds_in_the_share_asked_for(planned: Plan) -> None:
    plain = study_plan(planned, draws=2048).holds
    robust = robust_plan(planned, {}, 0.95, draws=2048)
    assert plain < 0.95 <= study_plan(robust, draws=8192).holds + 0.01
    assert robust.usd_per_month > planned.usd_per_month
    more = robust_plan(planned, {}, 0.99, draws=2048)
    assert more.usd_per_month >= robust.usd_per_month
    with pytest.raises(InputError, match="within 0 to 1"):
        robust_plan(planned, {}, 1.5)


def test_a_point_under_uncertainty() -> None:
    model, kind = costsim.load_model("llama-3.1-8b"), costsim.load_hardware("h100_sxm")
    deployment = deploy(model, kind, Layout())
    inputs = point_inputs(deployment, 32, 1000, 200, price_log_error=0.2)
    settings: dict[str, Any] = {"batch": 32, "isl": 1000, "osl": 200, "usd_per_hour": 3.0}
    study = study_point(deployment, **settings, inputs=inputs, draws=1 << 14, sobol_draws=256)
    low, high = study.interval("usd_per_query")
    assert low < float(np.median(study.usd_per_query)) < high
    assert study.sobol["price"][1] > 0.1
    certain = dict.fromkeys(inputs, FIXED) | {"price": lognormal(0.2)}
    alone = study_point(deployment, **settings, inputs=certain, draws=1 << 12, sobol_draws=0)
    a, b = alone.interval("usd_per_query")
    assert math.log(b / a) == pytest.approx(2 * 1.6449 * 0.2, rel=0.01)
    assert alone.interval("tpot_s")[0] == pytest.approx(alone.interval("tpot_s")[1])


def test_chunks_in_processes_give_the_same_draws() -> None:
    model, kind = costsim.load_model("llama-3.1-8b"), costsim.load_hardware("h100_sxm")
    deployment = replace(deploy(model, kind, Layout()))
    inputs = point_inputs(deployment, 32, 1000, 200, price_log_error=0.2)
    settings: dict[str, Any] = {"batch": 32, "isl": 1000, "osl": 200, "usd_per_hour": 3.0,
                                "inputs": inputs, "draws": 70_000, "sobol_draws": 0}  # fmt: skip
    here = study_point(deployment, **settings)
    executor = ProcessExecutor(2)
    there = study_point(deployment, **settings, executor=executor)
    executor.close()
    assert np.array_equal(here.usd_per_query, there.usd_per_query)
