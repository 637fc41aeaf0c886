"""The leaps and the step-by-step oracle give every request the same times, whatever is on."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from costsim.serving.controllers import Autoscaler
from costsim.serving.expert_ranks import ExpertRanks
from costsim.serving.faults import Failures, RollingRestart
from costsim.serving.fleet import Admission, Link, ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.routers import ROUTERS
from costsim.serving.scheduler import POLICIES, Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Sessions, SloClass, Traffic, generated

NEVER = float("inf")


def random_traffic(choose: Random, seed: int) -> tuple[Traffic, bool]:
    draw = np.random.default_rng(seed)
    count = choose.choice([20, 60, 120])
    prompt, output = draw.integers(1, 400, count), draw.integers(1, 120, count)
    arrival = np.cumsum(draw.exponential(1 / choose.choice([0.5, 3, 30]), count))
    traffic = generated(arrival, prompt, output)
    prefixes = choose.random() < 0.5
    if prefixes:
        hashes = [
            tuple(int(draw.integers(0, 3)) * 100 + k for k in range(p // 32)) for p in prompt
        ]
        traffic = replace(traffic, block_hashes=hashes, hash_tokens=32)
    if choose.random() < 0.4:
        first = SloClass("first", priority=0, timeout_s=choose.choice([5, 20, NEVER]))
        second = SloClass("second", priority=1, timeout_s=choose.choice([1, 10]))
        traffic = traffic.in_classes([first, second], seed)
    if choose.random() < 0.3:
        images = draw.integers(0, 3, len(prompt))
        traffic = replace(traffic, columns=traffic.columns | {"images": images})
    if not prefixes and choose.random() < 0.3:
        shared = {"prefix_tokens": np.full(count, 64), "prefix_group": np.arange(count) % 2}
        traffic, prefixes = replace(traffic, columns=traffic.columns | shared), True
    if choose.random() < 0.3:
        rules = Sessions(turns=3, think_s=1.0, prompt_tokens=50, output_tokens=20)
        traffic = replace(traffic, sessions=rules)
    return traffic, prefixes


def random_scheduler(choose: Random, prefixes: bool) -> Scheduler:
    return Scheduler(
        policy=choose.choice(list(POLICIES)),
        max_num_seqs=choose.choice([1, 4, 16, 64]),
        max_num_batched_tokens=choose.choice([64, 200, 2048]),
        watermark=choose.choice([0, 0.02]),
        reserve_full_prompt=choose.random() < 0.5,
        long_prompt_tokens=choose.choice([0, 0, 50]),
        order=choose.choice(["fcfs", "priority"]),
        prefix_cache=prefixes,
        ahead=choose.random() < 0.4,
        step_overhead_s=choose.choice([0, 1.03e-3]),
        request_overhead_s=choose.choice([0, 0, 2.1e-3]),
    )


def random_fleet(choose: Random, scheduler: Scheduler) -> tuple[list[ReplicaSpec], Link | None]:
    cost = AffineCost(0.02017, 1.113e-4, choose.choice([0, 1.017e-6]), 1.0237e-5, 1e-9)
    tokens = choose.choice([1200, 2500, 100_000])
    if choose.random() < 0.3 and scheduler.policy not in ("static", "orca"):
        first = ReplicaSpec(cost, tokens, scheduler, choose.choice([1, 2]), role="prefill",
                            kv_bytes_per_token=1.2345678e5)  # fmt: skip
        second = ReplicaSpec(cost, tokens, scheduler, choose.choice([1, 3]), role="decode")
        return [first, second], Link(choose.choice([1e7, 1e9]), 1.37e-3)
    ranks = choose.choice([1, 1, 3])
    experts = ExpertRanks(cost, ranks, [1, 40, 900], [1.01e-3, 2.03e-3, 9.07e-3])
    spec = ReplicaSpec(
        cost, tokens, scheduler, choose.choice([1, 2, 5]), ranks=ranks,
        lockstep=choose.choice([None, experts]), image_s=choose.choice([0.0, 0.0713]),
    )  # fmt: skip
    return [spec], None


def random_controllers(choose: Random, seed: int, role: str) -> list[Any]:
    kinds = [
        Failures(mtbf_s=20.03, mttr_s=2.01, seed=seed, node_accelerators=choose.choice([0, 2])),
        RollingRestart(start_s=3.007, down_s=1.003),
        Autoscaler(most=6, every_s=1.0007, cold_start_s=2.0003, cool_down_s=3.0001, slots=8,
                   role=role),
    ]
    return [kind for kind in kinds if choose.random() < 0.25]


def same(fast: SimulationResult, steps: SimulationResult) -> None:
    for name in ("status", "generated", "preemptions", "replica", "cached", "retries"):
        assert np.array_equal(fast.table[name], steps.table[name]), name
    for name in ("scheduled", "first_token", "finished"):
        one, other = fast.table[name], steps.table[name]
        assert np.array_equal(np.isnan(one), np.isnan(other)), name
        assert np.nanmax(np.append(np.abs(one - other), 0.0)) < 1e-6, name


@pytest.mark.parametrize("seed", range(80))
def test_fast_equals_step_by_step(seed: int) -> None:
    results = []
    for mode in ("fast", "steps"):
        choose = Random(seed)
        traffic, prefixes = random_traffic(choose, seed)
        scheduler = random_scheduler(choose, prefixes)
        specs, link = random_fleet(choose, scheduler)
        results.append(
            simulate(
                specs, traffic, mode=mode, seed=seed, link=link, oversize="reject",
                router=choose.choice(list(ROUTERS)), invariants=seed % 3 == 0,
                warmup_s=float(traffic.arrival[-1]) * choose.choice([0, 0.3]),
                controllers=random_controllers(choose, seed, specs[0].role),
                admission=choose.choice(
                    [None, Admission(max_outstanding=8), Admission(dispatch_limit=4)]
                ),
            )
        )  # fmt: skip
    same(*results)
    fast, steps = (result.summary() for result in results)
    assert fast["unserved"] == 0
    for name in ("utilisation", "mean_batch", "accelerator_s", "energy_j", "requests_per_s"):
        assert fast[name] == pytest.approx(steps[name], rel=1e-6, nan_ok=True), name


def test_a_planted_mistake_is_seen() -> None:
    flow = generated(np.arange(40) * 0.2, 300, 60)
    cost, faster = AffineCost(0.02, context_s=1e-6), AffineCost(0.02, context_s=1.001e-6)
    with pytest.raises(AssertionError):
        same(simulate(ReplicaSpec(cost, 4000), flow),
             simulate(ReplicaSpec(faster, 4000), flow, mode="steps"))  # fmt: skip


def test_preemptions_happen_and_agree() -> None:
    flow = generated(np.arange(60) * 0.05, 100, 200)
    spec = ReplicaSpec(AffineCost(0.02, 1e-4, 1e-6, 1e-5), 1600, Scheduler(prefix_cache=False))
    fast, steps = simulate(spec, flow), simulate(spec, flow, mode="steps")
    same(fast, steps)
    assert fast.summary()["preemptions"] > 10
