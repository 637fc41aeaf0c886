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
    range_of,
    sobol_shares,
    split,
)
from costsim.planning.executor import ProcessExecutor
from costsim.planning.plan import Plan, plan
from costsim.planning.plan_worth import spend_by_offer
from costsim.planning.uncertainty import point_inputs, robust_plan, study_plan, study_point
from costsim.planning.uncertainty_inputs import plan_inputs
from costsim.planning.uncertainty_plan import PlanModel, plan_model

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


@pytest.fixture(scope="module")
def reduced(planned: Plan) -> PlanModel:
    return plan_model(planned)


@given(st.floats(0.5, 1.0))
def test_cost_scales_with_the_price(reduced: PlanModel, factor: float) -> None:
    model = reduced
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


RANGES = """
terms = ["on_demand", "spot"]
[spot]
interruptions_per_hour = [0.02, 0.08]
[[hardware]]
name = "h100_sxm"
prices = { on_demand = [2.0, 4.0], spot = 1.5 }
[[demands]]
name = "chat"
model = "llama-3.1-8b"
rate = { kind = "triangular", low = 300, high = 600, mode = 400 }
isl = [600, 1000]
osl = 150
prefix_hit_share = [0.2, 0.6]
target = { ttft_p99_s = 1.0, tpot_p99_s = 0.03 }
[[demands]]
name = "batch"
model = "llama-3.1-8b"
rate = 200
isl = 800
osl = 150
target = { tpot_s = 0.1 }
"""


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    from costsim.planning.plan import load_plan, plan_demands

    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(RANGES)
    demands, hardware, options = load_plan(path)
    models = {"llama-3.1-8b": costsim.load_model("llama-3.1-8b")}
    options = replace(options, check=False, compare=False, disaggregated=False)
    return plan_demands(demands, models, hardware, options)


def test_numbers_of_a_file_may_be_ranges(ranged: Plan) -> None:
    chat = ranged.problem.demands[0]
    assert (chat.isl, chat.prefix_hit_share) == (800.0, pytest.approx(0.4))
    assert 300 < chat.rates[0] < 600 and ranged.options.prices["h100_sxm"]["on_demand"] == 3.0
    assert ranged.options.interruptions_per_hour == pytest.approx(0.05)
    inputs = plan_inputs(ranged)
    assert inputs["prompt length of chat"].low == pytest.approx(600 / 800)
    assert inputs["prefix hits of chat"].high == pytest.approx(1.5)
    assert inputs["traffic growth of chat"].kind == "triangular"
    assert inputs["on_demand price of h100_sxm"].low == pytest.approx(2 / 3)
    assert "price of h100_sxm" in inputs and inputs["interruptions"].low == pytest.approx(0.4)


def test_each_range_moves_its_own_demand_or_price_only(ranged: Plan) -> None:
    model = plan_model(ranged)
    one = {n: np.ones(1) for n in model.inputs}
    base = model.outcome(one)

    def changed(**factors: float) -> Any:
        return model.outcome(one | {n.replace("_of_", " of ").replace("__", " "): np.full(1, f)
                                    for n, f in factors.items()})  # fmt: skip

    longer = changed(prompt__length_of_chat=1.25)
    assert longer.need[0] > base.need[0]
    assert changed(prefix__hits_of_chat=1.5).need[0] < base.need[0]
    assert changed(prompt__length=1.25).need[0] > base.need[0]  # that of batch, by the common input
    assert changed(prompt__length=1.25).need[0] != longer.need[0]
    fewer = changed(interruptions=0.0).need[0]
    assert (fewer < base.need[0]) == bool(ranged.solution.spot.any())
    doubled = one | {"on_demand price of h100_sxm": np.full(1, 2.0)}
    spot = sum(t.get("spot", 0.0) for t in spend_by_offer(ranged.problem.fleet, ranged.solution)
               .values())  # fmt: skip
    assert spot > 0 and model.outcome(doubled).usd[0] == pytest.approx(2 * base.usd[0], rel=0.01)


def test_response_agrees_with_planning_for_longer_prompts(planned: Plan) -> None:
    """Capacity at 20 % longer prompts is that of a plan made for them, the engine's limit apart."""
    model = plan_model(planned)
    pool = int(np.flatnonzero(planned.solution.replicas.sum(axis=1))[0])
    response = next(iter(model.responses.values()))["prompt length"]
    demand = planned.problem.demands[0]
    longer = plan("llama-3.1-8b", ["h100_sxm"], traffic=demand.rates, isl=1.2 * demand.isl,
                  osl=demand.osl, prices=PRICES, target=demand.target, check=False,
                  compare=False, disaggregated=False)  # fmt: skip
    name = planned.problem.fleet.pools[pool].name
    same = next(p for p in longer.problem.everything.pools if p.name == name)
    ratio = same.capacity[0] / planned.problem.fleet.pools[pool].capacity[0]
    # The planner's own batches are a few percent apart, and so are capacities.
    assert float(np.exp(response.at(1.2))) == pytest.approx(ratio, rel=0.05)


def test_chips_enough_is_the_distribution_of_the_peak(planned: Plan) -> None:
    study = study_plan(planned, draws=2048)
    shares = list(study.chips_enough.values())
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    low, high = study.peak_chips
    assert study.chips_enough[round(high)] >= 0.95 > 0.05 <= study.chips_enough[round(low)]


def test_splitting_a_range_keeps_its_middle() -> None:
    middle, factor = split([800, 1500], "isl")
    assert middle == 1150 and factor is not None
    assert factor.ppf(np.array([0.0, 1.0])) * middle == pytest.approx([800, 1500])
    assert split(5, "isl") == (5.0, None)
    assert range_of("2..4", "rate").median == 3.0
    with pytest.raises(InputError, match="such as"):
        range_of("2..x", "rate")
