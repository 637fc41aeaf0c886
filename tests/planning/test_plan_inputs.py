"""What a plan is made from: prefix hits, providers, electricity and ownership."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import costsim
from costsim.economics.energy import power_w
from costsim.economics.ownership import ownership
from costsim.errors import InputError
from costsim.planning.cached import hit_share
from costsim.planning.plan import Plan, plan
from costsim.planning.plan_energy import plan_energy
from costsim.planning.targets import Target
from costsim.planning.workload import Demand, demand_of
from costsim.serving.flow import generated

MODEL = "llama-3.1-8b"
TARGET = Target(ttft_p99_s=1.0, tpot_p99_s=0.03)
FAST: dict[str, Any] = {"compare": False, "check": False, "disaggregated": False,
                        "terms": ("on_demand",)}  # fmt: skip


def chat(share: float, rate: float = 60.0) -> Demand:
    return Demand("chat", MODEL, np.array([rate]), 4000, 100, 0.3, TARGET, prefix_hit_share=share)


def test_prefix_hits_make_the_fleet_smaller_and_are_on_the_bill() -> None:
    none, many = (plan(MODEL, ["h100_sxm"], traffic=[chat(s)], **FAST) for s in (0.0, 0.8))
    assert many.usd_per_month < 0.7 * none.usd_per_month
    assert none.bill["cached_input"] == 0 < many.bill["cached_input"] < many.bill["input"]
    for found in (none, many):
        assert sum(found.bill.values()) == Decimal(f"{found.usd_per_month:.2f}")


def test_the_simulator_finds_the_hits_that_were_planned_with() -> None:
    options = FAST | {"check": True, "requests": 1000}
    found = plan(MODEL, ["h100_sxm"], traffic=[chat(0.75)], **options)
    assert found.holds
    flow = chat(0.75).requests(50.0, 800, seed=1)
    assert flow.block_hashes is not None
    blind = replace(flow, block_hashes=None)
    share = hit_share(flow.block_hashes, flow.prompt.tolist(), flow.hash_tokens)
    assert share == pytest.approx(0.75, abs=0.05) and blind.block_hashes is None


@pytest.mark.theory
def test_hit_share_of_a_known_trace() -> None:
    hashes = [(1, 2, 3), (1, 2, 4), (9,), (1, 2, 4)]
    # 0, then two blocks of 16, none, and two: the last token is always read
    assert hit_share(hashes, [48, 48, 16, 48], 16) == pytest.approx((32 + 32) / 160)


def test_a_trace_with_hashes_brings_its_hits() -> None:
    flow = generated(np.arange(0, 100, 0.5), 64, 8)
    plain = demand_of(flow, MODEL)
    told = demand_of(replace(flow, block_hashes=[(1, 2, 3)] * 200, hash_tokens=16), MODEL)
    assert plain.prefix_hit_share == 0.0
    assert told.prefix_hit_share == pytest.approx(199 / 200 * 48 / 64)


@pytest.fixture(scope="module")
def owned() -> Plan:
    return plan(MODEL, ["h100_sxm"], traffic=20.0, target=TARGET, isl=800, osl=150,
                electricity="france", ownership={"life_years": 4.0, "financing_rate": 0.1},
                **FAST | {"terms": ("owned",)})  # fmt: skip


def test_ownership_is_priced_at_the_activity_of_the_plan(owned: Plan) -> None:
    from costsim.economics.energy import load_region

    activity = float(np.mean([c.activity for c in owned.problem.candidates]))
    assert 0.1 < activity < 1.0 and activity != pytest.approx(0.7)
    cost = ownership(costsim.load_hardware("h100_sxm"), region=load_region("france"),
                     activity=activity, life_years=4.0, financing_rate=0.1)  # fmt: skip
    offer = owned.problem.fleet.offers[0]
    assert offer.committed_usd["owned"] == pytest.approx(float(cost.usd_per_hour))


def test_energy_lies_between_idle_and_full_power(owned: Plan) -> None:
    energy = plan_energy(owned)
    kind = costsim.load_hardware("h100_sxm")
    chips = sum(owned.solution.committed.values())
    low, high = (chips * float(power_w(kind, a)) / 1000 * 730.5 * energy.pue for a in (0.0, 1.0))
    assert low < energy.kwh < high
    assert energy.kg_co2 / energy.kwh == pytest.approx(0.056039)
    assert energy.j_per_query * owned.queries_per_month == pytest.approx(energy.kwh * 3.6e6)
    busier = plan_energy(plan(MODEL, ["h100_sxm"], traffic=22.0, target=TARGET, isl=800, osl=150,
                              electricity="france", **FAST | {"terms": ("owned",)}))  # fmt: skip
    assert busier.kwh > energy.kwh


def test_a_provider_and_a_region_choose_among_quotes() -> None:
    def usd(**of: Any) -> float:
        return plan(MODEL, ["h100_sxm"], traffic=5.0, target=TARGET, **FAST, **of).usd_per_month

    one = {"providers": {"h100_sxm": ("RunPod", "")}}
    dear = {"providers": {"h100_sxm": ("aws", "")}}
    assert usd(**one) < usd() < usd(**dear)
    with pytest.raises(InputError, match=r"no price for on_demand of Nobody.*RunPod"):
        usd(providers={"h100_sxm": ("Nobody", "")})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ownership": {"life_year": 3.0}}, "did you mean 'life_years'"),
        ({"electricity": "germny"}, "did you mean 'germany'"),
        ({"power": {"pue": -1.0}}, "above zero"),
        ({"power": {"pu": 1.0}}, "one of usd_per_kwh"),
    ],
)
def test_bad_money_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(MODEL, ["h100_sxm"], traffic=5.0, target=TARGET, **FAST, **options)


def test_e2e_targets_bind() -> None:
    loose, tight = (
        plan(MODEL, ["h100_sxm"], traffic=50.0, target=Target(e2e_s=s), isl=800, osl=150, **FAST)
        for s in (5.0, 1.0)
    )
    assert loose.usd_per_month <= tight.usd_per_month
    for found, most in ((loose, 5.0), (tight, 1.0)):
        for c in found.problem.candidates:
            assert c.ttft_s + 149 * c.tpot_s <= most * 1.001


def test_an_api_is_compared_with_the_same_hits() -> None:
    from costsim.planning.plan_breakeven import api_rivals

    def usd(share: float) -> float:
        demand = Demand("chat", "deepseek-v4-pro", np.array([1.0]), 4000, 100,
                        prefix_hit_share=share)  # fmt: skip
        return next(usd for price, usd in api_rivals(demand) if price.provider == "DeepSeek")

    assert usd(0.0) == pytest.approx((0.66 * 4000 + 1.98 * 100) / 1e6)
    assert usd(0.5) == pytest.approx((0.66 * 2000 + 0.022 * 2000 + 1.98 * 100) / 1e6)
