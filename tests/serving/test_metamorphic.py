"""What must follow when an input changes: no right answers here, only right changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.engine.memory import memory_budget
from costsim.models.parameters import active_parameters
from costsim.planning.estimate import make_deployment
from costsim.planning.fleet_case import FleetCase, Part
from costsim.planning.simulate import simulate as simulate_priced
from costsim.planning.simulation_bill import bill_of
from costsim.serving.fleet import ReplicaSpec
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Traffic, generated, load_traffic

COST = AffineCost(0.02, 1e-4, 1e-8, 2e-5)
SPEC = ReplicaSpec(COST, 60_000, Scheduler(max_num_seqs=32), accelerators=2)


def work(count: int = 1500, rate: float = 8.0, seed: int = 1) -> Traffic:
    table = {"arrivals": "poisson", "rate": rate, "requests": count, "input_tokens": 400,
             "output_tokens": 60, "length_cv": 0.8}  # fmt: skip
    return load_traffic(table, seed=seed)


def times(result: Any) -> np.ndarray:
    names = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
    return np.stack([result.latency(name) for name in names])


def test_more_load_never_makes_first_tokens_sooner() -> None:
    """Common random numbers: the same requests, closer and closer together."""
    flow = work()
    means = [simulate(SPEC, flow.at_rate(rate)).statistics("ttft_s")["mean"]
             for rate in (1.0, 4.0, 8.0, 12.0, 16.0, 24.0, 48.0)]  # fmt: skip
    assert means == sorted(means)


def test_more_replicas_cost_more_by_the_hour_and_shorten_the_tail() -> None:
    flow = work(rate=60.0)
    results = [simulate(replace(SPEC, count=count), flow) for count in (1, 2, 3, 4)]
    held = [r.accelerator_s / r.duration_s for r in results]
    tails = [r.statistics("ttft_s")["p99"] for r in results]
    assert held == pytest.approx([2, 4, 6, 8], rel=0.05)
    assert tails == sorted(tails, reverse=True)


def test_less_cache_never_makes_first_tokens_sooner() -> None:
    flow = work(rate=12.0)
    means = [simulate(replace(SPEC, kv_tokens=tokens), flow).statistics("ttft_s")["mean"]
             for tokens in (200_000, 20_000, 12_000, 8_000)]  # fmt: skip
    assert means == sorted(means) and means[-1] > 2 * means[0]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([0.25, 0.5, 2.0, 4.0, 1024.0]), st.integers(0, 5))
def test_a_clock_that_runs_slower_scales_every_time(factor: float, seed: int) -> None:
    flow = work(150, seed=seed)
    slow = AffineCost(*(factor * t for t in (0.02, 1e-4, 1e-8, 2e-5)))
    one = simulate(SPEC, flow)
    other = simulate(replace(SPEC, cost=slow), replace(flow, arrival=flow.arrival * factor))
    assert np.allclose(times(other), factor * times(one), rtol=1e-9, equal_nan=True)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.0, 300.0), st.floats(0.3, 20.0))
def test_when_it_begins_and_how_often_one_looks_change_nothing(start: float, grid: float) -> None:
    flow = work(150)
    one = simulate(SPEC, flow)
    moved = replace(flow, arrival=flow.arrival + start)
    other = simulate(SPEC, moved, sample_s=grid)
    assert np.allclose(times(one), times(other), rtol=0, atol=1e-6, equal_nan=True)


def test_units_do_not_matter() -> None:
    table: dict[str, Any] = {"arrivals": "poisson", "requests": 50, "input_tokens": 100,
                             "output_tokens": 20}  # fmt: skip
    one = load_traffic(table | {"rate": 2.0, "classes": [{"name": "a", "ttft_s": 0.05}]})
    words = {"rate": "120 /min", "classes": [{"name": "a", "ttft_s": "50 ms"}]}
    other = load_traffic(table | words)
    assert np.array_equal(one.arrival, other.arrival) and one.classes == other.classes


def test_priority_helps_those_who_have_it() -> None:
    flow = work(rate=26.0)
    tenant = np.arange(len(flow)) % 2
    mixed = replace(flow, columns={"tenant": tenant, "priority": tenant})
    fair = simulate(SPEC, mixed)
    first = simulate(replace(SPEC, scheduler=replace(SPEC.scheduler, order="priority")), mixed)
    mine = tenant == 0
    assert (np.percentile(first.latency("ttft_s")[mine], 99)
            < 0.5 * np.percentile(fair.latency("ttft_s")[mine], 99))  # fmt: skip
    assert first.latency("ttft_s")[~mine].mean() > fair.latency("ttft_s")[~mine].mean()


def test_a_request_alone_is_no_faster_than_the_machine() -> None:
    """Decode reads all weights; a prompt takes two operations a parameter and token."""
    deployment = make_deployment("llama-3.1-8b", "h100_sxm")
    from costsim.serving.engine_cost import replica_of

    result = simulate(replica_of(deployment), generated([0.0], 4000, 200))
    hardware = deployment.hardware
    weights = float(np.max(memory_budget(deployment).weights_bytes))
    bandwidth = float(np.max(hardware.memory_bandwidth_bytes_per_s))
    assert result.latency("tpot_s")[0] > 0.9 * weights / bandwidth
    work_flop = 2.0 * float(active_parameters(deployment.model)) * 4000
    peak = float(np.max(hardware.peak("bf16")))
    assert result.latency("ttft_s")[0] > 0.85 * work_flop / peak


def priced_case(price: str = "on_demand") -> FleetCase:
    deployment = make_deployment("llama-3.1-8b", "h100_sxm")
    table = {"arrivals": "poisson", "rate": 5.0, "requests": 80, "input_tokens": 200,
             "output_tokens": 30,
             "classes": [{"name": "a", "share": 0.3}, {"name": "b", "share": 0.7}]}  # fmt: skip
    return FleetCase((Part(deployment, 2, price=price),), {"default": table})


def test_money_scales_with_the_price_and_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = simulate_priced(priced_case())
    assert sum(row["usd"] for row in found.bill.classes.values()) == pytest.approx(found.usd)
    assert found.bill.requests.sum() == pytest.approx(found.usd)
    hours = found.result.accelerator_s / 3600
    assert found.usd == pytest.approx(hours * float(found.rent.central))
    rent = found.rent
    doubled = replace(rent, low=2 * rent.low, central=2 * rent.central, high=2 * rent.high)
    monkeypatch.setattr(Part, "rent", property(lambda self: doubled))
    again = bill_of(found.case.parts, found.result)
    assert again.usd == 2 * found.bill.usd
    assert again.classes["a"]["usd_per_query"] == 2 * found.bill.classes["a"]["usd_per_query"]


def test_a_class_pays_for_its_tokens() -> None:
    """Twice the tokens in each request is twice the cost of each request."""
    deployment = make_deployment("llama-3.1-8b", "h100_sxm")
    count = 60
    small = np.arange(count) % 2 == 0
    flow = generated(np.arange(count) * 0.1, np.where(small, 200, 400), np.where(small, 30, 60))
    flow = replace(flow, columns={"tenant": (~small).astype(np.int64)},
                   classes=(flow.classes[0], replace(flow.classes[0], name="big")))  # fmt: skip
    bill = simulate_priced(deployment, flow).bill
    ratio = bill.classes["big"]["usd_per_query"] / bill.classes["all"]["usd_per_query"]
    assert ratio == pytest.approx(2.0)
