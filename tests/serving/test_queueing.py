"""The simulator against queueing theory.

A request of n output tokens on a replica with constant step time is a customer of n step times of
service; steps are a ten-thousandth of a mean service, so that waiting for a step to end is less
than the tolerance. Closed forms: Kleinrock, Queueing Systems I; Reiser and Lavenberg 1980 (MVA).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from costsim.serving.fleet import Admission, ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Sessions, generated

pytestmark = pytest.mark.theory
STEP_S = 1e-4
SEEDS = 10
Draw = Callable[[np.random.Generator, int], np.ndarray]


def exponential(random: np.random.Generator, count: int) -> np.ndarray:
    return random.exponential(1.0, count)


def constant(random: np.random.Generator, count: int) -> np.ndarray:
    return np.ones(count)


def hyperexponential(random: np.random.Generator, count: int) -> np.ndarray:
    """Balanced means, squared coefficient of variation 4."""
    p = 0.5 * (1 + math.sqrt(3 / 5))
    first = random.random(count) < p
    return np.where(first, 0.5 / p, 0.5 / (1 - p)) * random.exponential(1.0, count)


def run(
    rate: float, draw: Draw, seed: int, servers: int = 1, count: int = 12_000, speed: float = 1.0,
    slots: int = 1, share: bool = False,
) -> SimulationResult:  # fmt: skip
    random = np.random.default_rng(seed)
    arrival = np.cumsum(random.exponential(1 / rate, count))
    tokens = np.maximum(1, np.rint(draw(random, count) / STEP_S)).astype(np.int64) + 1
    step = STEP_S / speed
    cost = AffineCost(0.0, step, prompt_step_s=0.0) if share else AffineCost(step, prompt_step_s=0)
    spec = ReplicaSpec(cost, 10**12, Scheduler(max_num_seqs=slots), count=servers)
    limit = Admission(dispatch_limit=1) if servers > 1 else None
    return simulate(spec, generated(arrival, 1, tokens), admission=limit)


def mean_wait(result: SimulationResult) -> float:
    """Mean wait of the later nine tenths: the queue starts empty."""
    waits = result.latency("queue_s")
    return float(waits[len(waits) // 10 :].mean())


def z_score(expected: float, *, value: Callable[[int], float]) -> float:
    found = np.array([value(seed) for seed in range(SEEDS)])
    return float((found.mean() - expected) / (found.std(ddof=1) / math.sqrt(SEEDS)))


def erlang_c_wait(servers: int, load: float) -> float:
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) / (servers - load)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.8])
def test_mm1(rho: float) -> None:
    assert abs(z_score(rho / (1 - rho), value=lambda s: mean_wait(run(rho, exponential, s)))) < 4


@pytest.mark.slow
def test_mm1_near_saturation() -> None:
    value = lambda s: mean_wait(run(0.95, exponential, s, count=60_000))  # noqa: E731
    assert abs(z_score(19.0, value=value)) < 4


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_md1(rho: float) -> None:
    expected = rho / (2 * (1 - rho))
    assert abs(z_score(expected, value=lambda s: mean_wait(run(rho, constant, s)))) < 4


def test_mg1_pollaczek_khinchine() -> None:
    expected = 0.7 * (1 + 4) / (2 * 0.3)
    value = lambda s: mean_wait(run(0.7, hyperexponential, s, count=20_000))  # noqa: E731
    assert abs(z_score(expected, value=value)) < 4


@pytest.mark.parametrize("servers", [2, 8])
def test_mmc_as_replicas_behind_one_queue(servers: int) -> None:
    expected = erlang_c_wait(servers, 0.8 * servers)
    value = lambda s: mean_wait(run(0.8 * servers, exponential, s, servers=servers))  # noqa: E731
    assert abs(z_score(expected, value=value)) < 4


def test_mmc_as_slots_of_one_replica() -> None:
    expected = erlang_c_wait(3, 2.4)
    # A slot is refilled when a step ends: at most one step late.
    value = lambda s: mean_wait(run(2.4, exponential, s, slots=3))  # noqa: E731
    assert abs(z_score(expected, value=value)) < 4


@pytest.mark.parametrize("draw", [exponential, hyperexponential], ids=["mm1", "mg1"])
def test_processor_sharing(draw: Draw) -> None:
    """Step time in proportion to the batch: mean time in system is 1 / (1 - rho) for any law."""
    expected = 1 / (1 - 0.7)

    def value(seed: int) -> float:
        times = run(0.7, draw, seed, slots=4096, share=True).latency("e2e_s")
        return float(times[len(times) // 10 :].mean())

    assert abs(z_score(expected, value=value)) < 4


def closed(users: int, think_s: float, seed: int) -> float:
    """Throughput of users who think and are served one at a time."""
    tokens = np.random.default_rng(seed).geometric(STEP_S, users)
    rules = Sessions(think_s=think_s, users=users, geometric=True, grows=False,
                     output_tokens=round(1 / STEP_S))  # fmt: skip
    start = generated(np.zeros(users), 1, tokens, sessions=rules)
    spec = ReplicaSpec(
        AffineCost(STEP_S, prompt_step_s=0.0), 10**12, Scheduler(max_num_seqs=1), count=1
    )
    result = simulate(spec, start, seed=seed, until_s=2500.0)
    done = result.table["finished"]
    return float(np.sum((done > 250.0) & (done <= 2500.0)) / 2250.0)


def mva(users: int, think_s: float) -> float:
    """Exact mean value analysis of one exponential server (mean 1 s) and a delay."""
    queue, rate = 0.0, 0.0
    for n in range(1, users + 1):
        stay = 1.0 + queue
        rate = n / (think_s + stay)
        queue = rate * stay
    return rate


def test_closed_network_mva() -> None:
    users, think = 6, 4.0
    assert abs(z_score(mva(users, think), value=lambda s: closed(users, think, s))) < 4


def test_a_server_made_a_tenth_faster_is_caught() -> None:
    value = lambda s: mean_wait(run(0.8, exponential, s, speed=1.1))  # noqa: E731
    assert abs(z_score(4.0, value=value)) > 4


def test_little() -> None:
    """Requests in the system, by integrating arrivals and departures, against rate times stay."""
    result = run(0.8, exponential, 1)
    arrival, finished = result.table["arrival"], result.table["finished"]
    events = np.concatenate([arrival, finished])
    order = np.argsort(events, kind="stable")
    change = np.concatenate([np.ones(len(arrival)), -np.ones(len(finished))])[order]
    inside = np.cumsum(change)[:-1]
    area = float(np.sum(inside * np.diff(events[order])))
    stay = float(np.sum(finished - arrival))
    assert area == pytest.approx(stay, rel=1e-9)


def test_queue_references(shared_data: object) -> None:
    """The independent table of closed forms agrees with the formula used here."""
    import json
    from pathlib import Path

    rows = json.loads((Path(str(shared_data)) / "queue_refs.json").read_text())
    many = [row for row in rows if str(row["model"]).startswith("M/M/") and "Wq" in row]
    checked = 0
    for row in many:
        name = str(row["model"]).split("/")
        if len(name) == 3 and name[2].isdigit():
            servers = int(name[2])
            assert erlang_c_wait(servers, row["lam"]) == pytest.approx(row["Wq"], rel=1e-9)
            checked += 1
    assert checked >= 5
