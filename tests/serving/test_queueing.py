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
from costsim.serving.requests import REJECTED
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


def z_score(expected: float, value: Callable[[int], float], seeds: int = SEEDS) -> float:
    found = np.array([value(seed) for seed in range(seeds)])
    return float((found.mean() - expected) / (found.std(ddof=1) / math.sqrt(seeds)))


def erlang_c(servers: int, load: float) -> float:
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


def erlang_c_wait(servers: int, load: float) -> float:
    return erlang_c(servers, load) / (servers - load)


def check(expected: float, value: Callable[[int, float], float]) -> None:
    """The mean over seeds is the closed form's; that of a server made 10 % faster is not."""
    assert abs(z_score(expected, lambda seed: value(seed, 1.0))) < 4
    assert abs(z_score(expected, lambda seed: value(seed, 1.1), SEEDS // 2)) > 4


def customers(rho: float) -> int:
    """Enough to tell a server 10 % faster; runs near saturation are correlated for long."""
    return {0.3: 6_000, 0.5: 6_000, 0.7: 6_000, 0.8: 8_000, 0.9: 12_000}.get(rho, 24_000)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.8, 0.9, 0.95])
def test_mm1(rho: float) -> None:
    count = customers(rho)
    check(rho / (1 - rho), lambda s, v: mean_wait(run(rho, exponential, s, count=count, speed=v)))


@pytest.mark.parametrize("rho", [0.3, 0.8, 0.95])
def test_md1(rho: float) -> None:
    count = customers(rho)
    expected = rho / (2 * (1 - rho))
    check(expected, lambda s, v: mean_wait(run(rho, constant, s, count=count, speed=v)))


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
def test_mg1_pollaczek_khinchine(rho: float) -> None:
    count = 2 * customers(rho)
    expected = rho * (1 + 4) / (2 * (1 - rho))
    check(expected, lambda s, v: mean_wait(run(rho, hyperexponential, s, count=count, speed=v)))


@pytest.mark.parametrize(("servers", "rho"), [
    (2, 0.3), (3, 0.5), (8, 0.8), (4, 0.95),
])  # fmt: skip
def test_mmc_as_replicas_behind_one_queue(servers: int, rho: float) -> None:
    expected = erlang_c_wait(servers, rho * servers)
    count = customers(rho)
    check(expected, lambda s, v: mean_wait(
        run(rho * servers, exponential, s, servers=servers, count=count, speed=v)))


@pytest.mark.parametrize(("slots", "rho"), [(2, 0.5), (8, 0.8)])
def test_mmc_as_slots_of_one_replica(slots: int, rho: float) -> None:
    """A slot is refilled when a step ends: at most one step late."""
    expected = erlang_c_wait(slots, rho * slots)
    count = customers(rho)
    check(expected, lambda s, v: mean_wait(
        run(rho * slots, exponential, s, slots=slots, count=count, speed=v)))


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("draw", [exponential, hyperexponential], ids=["mm1", "mg1"])
def test_processor_sharing(draw: Draw, rho: float) -> None:
    """Step time in proportion to the batch: mean time in system is 1 / (1 - rho) for any law."""

    def value(seed: int, speed: float) -> float:
        result = run(rho, draw, seed, slots=4096, share=True, count=customers(rho), speed=speed)
        times = result.latency("e2e_s")
        return float(times[len(times) // 10 :].mean())

    check(1 / (1 - rho), value)


def later_stay(result: SimulationResult) -> float:
    """Mean time in system of those who arrive in the last nine tenths of 2500 s."""
    stays, arrival = result.latency("e2e_s"), result.table["arrival"]
    return float(np.nanmean(stays[(arrival > 250.0) & (arrival < 2450.0)]))


def closed(users: int, think_s: float, seed: int, speed: float) -> float:
    """Time in system of users who think and are served one at a time."""
    tokens = np.random.default_rng(seed).geometric(STEP_S, users)
    rules = Sessions(think_s=think_s, users=users, geometric=True, grows=False,
                     output_tokens=round(1 / STEP_S))  # fmt: skip
    start = generated(np.zeros(users), 1, tokens, sessions=rules)
    spec = ReplicaSpec(
        AffineCost(STEP_S / speed, prompt_step_s=0.0), 10**12, Scheduler(max_num_seqs=1), count=1
    )
    result = simulate(spec, start, seed=seed, until_s=2500.0)
    return later_stay(result)


def mva(users: int, think_s: float) -> float:
    """Exact mean value analysis of an exponential server (mean 1 s) and a delay: time in system."""
    queue, stay = 0.0, 0.0
    for n in range(1, users + 1):
        stay = 1.0 + queue
        queue = n / (think_s + stay) * stay
    return stay


@pytest.mark.parametrize(("users", "think_s"), [(2, 4.0), (6, 4.0), (10, 8.0), (8, 2.0)])
def test_closed_network_mva(users: int, think_s: float) -> None:
    """Utilisations of 0.39, 0.86, 0.90 and 0.999: the last is the server's own rate."""
    check(mva(users, think_s), lambda s, v: closed(users, think_s, s, v))


def closed_line(users: int, think_s: float, seed: int, speed: float) -> float:
    """Time in system of users who think, and pass a prefill and then a decode replica."""
    random = np.random.default_rng(seed)
    rules = Sessions(think_s=think_s, users=users, geometric=True, grows=False,
                     output_tokens=round(1 / STEP_S))  # fmt: skip
    start = generated(np.zeros(users), 1, random.geometric(STEP_S, users), sessions=rules)
    one = Scheduler(max_num_seqs=1)
    # Prompts take no time here: the server is the decode replica, one request at a time.
    specs = [
        ReplicaSpec(AffineCost(STEP_S, prompt_step_s=0.0), 10**9, one, role="prefill"),
        ReplicaSpec(AffineCost(STEP_S / speed), 10**9, one, role="decode"),
    ]
    result = simulate(specs, start, seed=seed, until_s=2500.0)
    return later_stay(result)


def test_closed_network_through_prefill_and_decode_replicas() -> None:
    check(mva(6, 4.0), lambda s, v: closed_line(6, 4.0, s, v))


def test_tail_of_the_wait_in_mm1() -> None:
    """P(W > t) = rho exp(-(1 - rho) t), so that p99 is ln(100 rho) / (1 - rho)."""
    rho = 0.8

    def value(seed: int, speed: float) -> float:
        waits = run(rho, exponential, seed, count=16_000, speed=speed).latency("queue_s")
        return float(np.percentile(waits[1_600:], 99))

    check(math.log(100 * rho) / (1 - rho), value)


@pytest.mark.parametrize("rho", [0.9, 1.5])
def test_mm1_with_ten_places_loses_as_erlang_says(rho: float) -> None:
    """Load shedding at ten requests in the system: M/M/1/10."""
    expected = (1 - rho) * rho**10 / (1 - rho**11)

    def value(seed: int, speed: float) -> float:
        random = np.random.default_rng(seed)
        arrival = np.cumsum(random.exponential(1 / rho, 10_000))
        tokens = np.maximum(1, np.rint(random.exponential(1.0, 10_000) / STEP_S)) + 1
        cost = AffineCost(STEP_S / speed, prompt_step_s=0.0)
        spec = ReplicaSpec(cost, 10**12, Scheduler(max_num_seqs=1))
        flow = generated(arrival, 1, tokens.astype(np.int64))
        result = simulate(spec, flow, admission=Admission(max_outstanding=10))
        return float((result.table["status"] == REJECTED)[1_000:].mean())

    check(expected, value)


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
