"""The bill of simulated runs adds up to the cent, with caches, failures and idling."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

import costsim
from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.planning.plan_run_bill import bill_of_run, usage_of_run
from costsim.serving.engine_cost import replica_of
from costsim.serving.faults import Failures
from costsim.serving.results import SimulationResult
from costsim.serving.simulation import simulate
from costsim.serving.traffic import generated


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return deploy(costsim.load_model("llama-3.1-8b"), costsim.load_hardware("h100_sxm"), Layout())


def run(deployment: Deployment, hashes: bool = False, failures: bool = False) -> SimulationResult:
    random = np.random.default_rng(4)
    arrival = np.sort(random.uniform(0, 60, 400))
    blocks = [[int(n) for n in range(2)] + [1000 + i] for i in range(400)] if hashes else None
    flow = generated(arrival, 1536, 60, block_hashes=blocks)
    controllers = [Failures(mtbf_s=20.0, mttr_s=2.0, seed=1)] if failures else []
    spec = replica_of(deployment, count=2, prefix_cache=hashes)
    return simulate(spec, flow, seed=1, controllers=controllers)


@pytest.mark.parametrize(("hashes", "failures"), [(False, False), (True, False), (False, True)])
def test_the_bill_adds_up_to_the_cent(
    deployment: Deployment, hashes: bool, failures: bool
) -> None:
    result = run(deployment, hashes, failures)
    parts = bill_of_run(deployment, result, 2.95)
    usage = usage_of_run(deployment, result)
    bill = Decimal(repr(usage.paid_s / 3600.0 * 2.95)).quantize(Decimal("0.01"), "ROUND_HALF_UP")
    assert sum(parts.values()) == bill
    assert usage.paid_s == pytest.approx(result.accelerator_s)


def test_each_part_has_its_cause(deployment: Deployment) -> None:
    plain, cached, failed = (run(deployment), run(deployment, hashes=True),
                             run(deployment, failures=True))  # fmt: skip
    rate = 3000.0
    assert bill_of_run(deployment, plain, rate)["cached_input"] == 0
    assert bill_of_run(deployment, cached, rate)["cached_input"] > 0
    assert bill_of_run(deployment, plain, rate)["failures"] == 0
    assert bill_of_run(deployment, failed, rate)["failures"] > 0
    started = bill_of_run(deployment, plain, rate, cold_start_s=10.0)
    share = 10.0 * 1 / usage_of_run(deployment, plain).paid_s
    total = float(sum(started.values()))
    assert float(started["cold_starts"]) == pytest.approx(share * total, abs=0.02)
