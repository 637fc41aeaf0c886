"""Two models of one engine, written apart: the simulator in a closed loop and the steady state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings
from costsim.engine.steady_state import operating_point
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model
from costsim.serving.engine_cost import replica_of
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import load_traffic

CASES: list[tuple[str, str, dict[str, int], int, int, int]] = [
    ("llama-3.1-8b", "h100_sxm", {}, 16, 1024, 256),
    ("llama-3.1-8b", "h100_sxm", {}, 128, 1024, 256),
    ("llama-3.1-8b", "h200_sxm", {}, 256, 200, 1000),
    ("llama-3.1-8b", "l40s", {}, 32, 512, 128),
    ("llama-3.1-70b", "h100_sxm", {"tp": 4}, 64, 2048, 512),
    ("llama-3.1-70b", "a100_sxm_80gb", {"tp": 8}, 16, 4000, 500),
    ("llama-3.1-70b", "h100_sxm", {"tp": 4, "pp": 2}, 64, 1024, 256),
    ("mixtral-8x7b", "h100_sxm", {"tp": 2}, 32, 512, 256),
    ("qwen3-30b-a3b", "h200_sxm", {}, 64, 1024, 512),
    ("deepseek-v3", "h200_sxm", {"tp": 8, "ep": 8}, 64, 1024, 512),
]


def deployment_of(model: str, hardware: str, layout: dict[str, int]) -> Deployment:
    """Requests out of step with one another: what clusters real benchmarks is left out of both."""
    settings = replace(load_settings("vllm"), async_scheduling=False, tokenize_s=0.0,
                       sync_step_s=0.0, sync_request_s=0.0)
    return deploy(load_model(model), load_hardware(hardware), Layout(**layout), settings=settings)


@dataclass(frozen=True)
class Loop:
    """What a closed loop of the simulator does, without its beginning."""

    tpot_s: float
    ttft_s: float
    requests_per_s: float


def closed_loop(
    deployment: Deployment, batch: int, isl: int, osl: int, span_s: float, **scheduler: Any
) -> Loop:
    """Keep ``batch`` requests in flight, their first outputs cut so that they finish apart."""
    table = {"input_tokens": isl, "output_tokens": osl, "duration_s": span_s,
             "sessions": {"users": batch, "grows": False, "output_tokens": osl}}  # fmt: skip
    flow = load_traffic(table)
    flow = replace(flow, output=np.random.default_rng(batch).integers(1, osl + 1, batch))
    result = simulate(replica_of(deployment, **scheduler), flow)
    table_, begin = result.table, 0.25 * span_s
    mine = table_["arrival"] > begin
    gaps = (table_["finished"] - table_["first_token"])[mine].sum()
    done = table_["finished"]
    return Loop(
        float(gaps / (table_["output"][mine] - 1).sum()),
        float(result.latency("ttft_s")[mine].mean()),
        float(np.sum((done > begin) & (done <= span_s)) / (span_s - begin)),
    )  # fmt: skip


@pytest.mark.parametrize(("model", "hardware", "layout", "batch", "isl", "osl"), CASES)
def test_closed_loop_agrees_with_the_steady_state(
    model: str, hardware: str, layout: dict[str, int], batch: int, isl: int, osl: int
) -> None:
    deployment = deployment_of(model, hardware, layout)
    point = operating_point(deployment, batch, isl, osl)
    assert bool(point.fits)
    found = closed_loop(deployment, batch, isl, osl, 14 * float(point.e2e_s), ahead=False)
    assert float(point.tpot_s) == pytest.approx(found.tpot_s, rel=0.03)
    assert float(point.requests_per_s) == pytest.approx(found.requests_per_s, rel=0.03)
    assert float(point.ttft_s) == pytest.approx(found.ttft_s, rel=0.3)


def test_a_tenth_less_bandwidth_is_seen() -> None:
    model, hardware, layout, batch, isl, osl = CASES[0]
    deployment = deployment_of(model, hardware, layout)
    slower = deployment.hardware.memory_bandwidth_bytes_per_s * 0.9
    changed = deployment.with_changes(
        hardware=replace(deployment.hardware, memory_bandwidth_bytes_per_s=slower)
    )
    point = operating_point(changed, batch, isl, osl)
    found = closed_loop(deployment, batch, isl, osl, 14 * float(point.e2e_s), ahead=False)
    assert float(point.tpot_s) > 1.05 * found.tpot_s


def test_asynchronous_scheduling_delays_first_tokens_by_a_step() -> None:
    deployment = deployment_of(*CASES[0][:3])
    batch, isl, osl = CASES[0][3:]
    late, soon = (closed_loop(deployment, batch, isl, osl, 30.0, ahead=ahead)
                  for ahead in (True, False))  # fmt: skip
    assert 0.5 * soon.tpot_s < late.ttft_s - soon.ttft_s < 1.5 * soon.tpot_s
    assert late.tpot_s == pytest.approx(soon.tpot_s, rel=0.01)


def test_ranks_with_experts_wait_for_the_slowest() -> None:
    """Equal ranks cost what the engine says; one rank's prompt holds all of them up."""
    deployment = deployment_of("deepseek-v3", "h200_sxm", {"dp": 8, "ep": 8})
    spec = replica_of(deployment)
    assert spec.ranks == 8 and spec.accelerators == 1 and spec.lockstep is not None
    from costsim.engine.step import step_time

    whole = float(step_time(deployment, decode_requests=64, decode_context=2000).seconds)
    even = [(8, 16_000.0, [], 0)] * 8
    assert spec.lockstep.step(even) == pytest.approx(whole, rel=0.02)
    assert spec.lockstep.leap(even, 3)[0] == pytest.approx(whole, rel=0.02)
    uneven = [(15, 30_000.0, [], 0)] + [(7, 14_000.0, [], 0)] * 7
    assert spec.lockstep.step(uneven) > 1.01 * spec.lockstep.step(even)
    prompt = [(8, 16_000.0, [(1000, 0)], 0), *even[1:]]
    all_prompts = [(8, 16_000.0, [(1000, 0)], 0)] * 8
    assert whole < spec.lockstep.step(prompt) < spec.lockstep.step(all_prompts)
    idle = [even[0], *[(0, 0.0, [], 0)] * 7]
    assert 0 < spec.lockstep.step(idle) < whole


def test_dense_ranks_keep_their_own_cache_and_queue() -> None:
    spec = replica_of(deployment_of("llama-3.1-8b", "h100_sxm", {"dp": 2}))
    one = replica_of(deployment_of("llama-3.1-8b", "h100_sxm", {}))
    assert spec.ranks == 2 and spec.lockstep is None
    assert spec.kv_tokens == pytest.approx(one.kv_tokens, rel=0.05)
    assert not isinstance(spec.cost, AffineCost)


def test_a_step_takes_no_less_than_either_of_its_halves_however_many_prompts_share_it() -> None:
    cost = replica_of(deployment_of("llama-3.1-8b", "h100_sxm", {}), policy="orca").cost
    for batch in (1, 64, 256):
        for prompts in (1, 10, 60, 200):
            for tokens in (128, 1024, 4096):
                chunks, context = [(tokens, 0)] * prompts, 1000.0 * batch
                both = cost.mixed(batch, context, chunks)
                alone = cost.decode(batch).seconds(context), cost.mixed(0, 0.0, chunks)
                assert 0.999 * max(alone) <= both <= 1.001 * sum(alone), (batch, prompts, tokens)


@pytest.mark.parametrize(("batch", "isl", "osl"), [(64, 1024, 512), (128, 4000, 256)])
def test_data_parallel_ranks_agree_with_the_steady_state(batch: int, isl: int, osl: int) -> None:
    """A prompt on one rank holds all of them up, and its exchange is that of the fullest rank."""
    deployment = deployment_of("deepseek-v3", "h200_sxm", {"dp": 8, "ep": 8})
    point = operating_point(deployment, batch, isl, osl)
    found = closed_loop(deployment, batch, isl, osl, 10 * float(point.e2e_s), ahead=False)
    assert float(point.tpot_s) == pytest.approx(found.tpot_s, rel=0.06)
    assert float(point.requests_per_s) == pytest.approx(found.requests_per_s, rel=0.10)
