"""A benchmark's beginning and its waves, against a simulation of the same steps one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from costsim.engine.benchmark import Benchmark, waves_of
from costsim.engine.deployment import Deployment
from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import closed_loop, operating_point
from costsim.engine.step import step_time

Serve = Callable[..., Deployment]
PUBLIC = Benchmark(10, 2.0 / 9.0)
ISL = 1000


@dataclass
class Client:
    """One request: when it was sent, prompt tokens and output tokens to go."""

    sent: float
    prompt: float
    output: int
    first: float = 0.0


class Steps:
    """Times of an engine's steps, tabulated."""

    def __init__(self, deployment: Deployment, clients: int, context: float) -> None:
        self.batch = np.arange(0, clients + 1)
        self.tokens = np.linspace(0, deployment.settings.max_num_batched_tokens, 9)
        count = self.tokens[1:] / np.minimum(self.tokens[1:], ISL)
        grid = step_time(
            deployment, prefill_requests=count[None, :],
            prefill_tokens=np.minimum(self.tokens[1:], ISL)[None, :], prefill_context=0,
            decode_requests=self.batch[:, None], decode_context=context).seconds
        alone = step_time(deployment, decode_requests=self.batch, decode_context=context).seconds
        self.seconds = np.concatenate([np.asarray(alone)[:, None], grid], axis=1)

    def __call__(self, decoding: int, tokens: float) -> float:
        return float(np.interp(tokens, self.tokens, self.seconds[decoding]))


def simulated(
    deployment: Deployment, clients: int, lengths: np.ndarray
) -> tuple[float, float]:
    """Return mean TTFT and TPOT of a benchmark, step by step; steps are not scheduled ahead."""
    settings = deployment.settings
    steps = Steps(deployment, clients, ISL + 0.5 * float(lengths.mean()))
    left = deque(int(n) for n in lengths)
    waiting = deque(Client(0.0, ISL, left.popleft()) for _ in range(clients))
    arriving: list[Client] = []
    running: list[Client] = []
    now, ttft, tpot = 0.0, [], []
    while waiting or running or arriving:
        alone = bool(waiting) and not settings.chunked_prefill
        room = settings.max_num_batched_tokens - (0 if alone else len(running))
        done: list[Client] = []
        tokens = 0.0
        while waiting and room > 0:
            take = min(room, waiting[0].prompt)
            waiting[0].prompt -= take
            tokens, room = tokens + take, room - take
            if waiting[0].prompt > 0:
                break
            done.append(waiting.popleft())
        now += steps(0 if alone else len(running), tokens)
        # What comes while a step runs is seen when it has ended.
        waiting.extend(arriving)
        arriving = []
        ended = [] if alone else [c for c in running if c.output <= 1]
        if not alone:
            for each in running:
                each.output -= 1
        running = [c for c in running if c not in ended]
        for each in ended:
            tpot.append((now - each.first) / each.prompt)
            if left:
                arriving.append(Client(now, ISL, left.popleft()))
        for each in done:
            each.first = now
            ttft.append(now - each.sent)
            each.output -= 1
            each.prompt = each.output
            running.append(each)
    return float(np.mean(ttft)), float(np.mean(tpot))


@pytest.mark.theory
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("clients", [4, 16, 64])
def test_benchmark_agrees_with_its_simulation(serve: Serve, chunked: bool, clients: int) -> None:
    deployment = serve("llama-3.1-70b", tp=4, settings=EngineSettings(chunked_prefill=chunked))
    lengths = np.random.default_rng(clients).integers(240, 301, 10 * clients)
    ttft, tpot = simulated(deployment, clients, lengths)
    found = closed_loop(deployment, clients, ISL, float(lengths.mean()), PUBLIC)
    assert float(found.tpot_s) == pytest.approx(tpot, rel=0.03)
    assert float(found.ttft_s) == pytest.approx(ttft, rel=0.12)


@pytest.mark.theory
def test_equal_lengths_stay_together_where_prompts_go_first(serve: Serve) -> None:
    """All clients finish in the same step, so every round is a burst like the first one."""
    deployment = serve("llama-3.1-70b", tp=4, settings=EngineSettings(chunked_prefill=False))
    ttft, tpot = simulated(deployment, 32, np.full(320, 200))
    found = closed_loop(deployment, 32, ISL, 200, Benchmark(10))
    assert float(found.ttft_s) == pytest.approx(ttft, rel=0.15)
    assert float(found.tpot_s) == pytest.approx(tpot, rel=0.08)
    spread = closed_loop(deployment, 32, ISL, 200, PUBLIC)
    assert float(found.ttft_s) > 2.0 * float(spread.ttft_s)


@pytest.mark.theory
def test_a_long_benchmark_is_a_stream(serve: Serve) -> None:
    deployment = serve("llama-3.1-70b", tp=4)
    stream = operating_point(deployment, 32, ISL, 300)
    short, long = (operating_point(deployment, 32, ISL, 300, run=Benchmark(rounds, 0.9))
                   for rounds in (2, 1e4))
    assert float(long.tpot_s) == pytest.approx(float(stream.tpot_s), rel=0.01)
    assert float(long.ttft_s) == pytest.approx(float(stream.ttft_s), rel=0.15)
    assert float(short.ttft_s) > 1.5 * float(long.ttft_s)


def test_waves_flatten() -> None:
    """The more the lengths differ and the more rounds there are, the nearer to an even stream."""
    narrow, wide = (waves_of(Benchmark(10, width), 64, 1000, 7.0) for width in (0.1, 0.8))
    assert narrow.density > wide.density >= 1.0
    few, many = (waves_of(Benchmark(rounds, 0.2), 64, 1000, 7.0) for rounds in (3, 20))
    assert few.density > many.density and few.first > many.first
    one = waves_of(Benchmark(1, 0.2), 64, 1000, 7.0)
    assert one.first == 1.0 and one.density == 1.0
    equal = waves_of(Benchmark(10), 64, 1000, 50.0)
    assert equal.density == pytest.approx(20.0) and equal.scatter == 0.0


@pytest.mark.theory
def test_prompts_held_back_for_others(serve: Serve) -> None:
    """Fewer steps have prompts in them, so decodes gain what first tokens lose."""
    layout = {"tp": 1, "dp": 8, "ep": 8}
    plain, ranks = (closed_loop(serve("deepseek-v3", settings=EngineSettings(
        rank_hold_steps=steps), **layout), 128, 4000, 500, PUBLIC) for steps in (0, 60))
    assert ranks.tpot_s < 0.9 * plain.tpot_s and ranks.ttft_s > 1.2 * plain.ttft_s
    plain, batch = (closed_loop(serve("llama-3.1-70b", tp=4, settings=EngineSettings(
        hold_steps=steps, hold_share=0.9)), 16, 500, 500, PUBLIC) for steps in (0, 20))
    wait = float(batch.ttft_s - plain.ttft_s)
    assert wait == pytest.approx(0.9 * 20 * float(batch.tpot_s), rel=0.15)


@pytest.mark.theory
def test_whole_prompts_leave_room_unused(serve: Serve) -> None:
    """2,500 tokens hold two prompts of a thousand, not two and a half."""
    whole, two, more = (float(operating_point(serve("llama-3.1-8b", settings=EngineSettings(
        split_prompts=split, max_num_batched_tokens=budget)), 256, ISL, 2, run=Benchmark(1)).ttft_s)
        for split, budget in ((False, 2600), (True, 2000), (True, 2600)))
    assert whole == pytest.approx(two, rel=0.05) and whole > more


@pytest.mark.theory
def test_front_end_reads_prompts_one_by_one(serve: Serve) -> None:
    """Slower than the engine, it alone decides when the first tokens of a burst come."""
    plain, slow = (closed_loop(serve("llama-3.1-8b", tp=8, settings=EngineSettings(
        tokenize_s=seconds)), 64, ISL, 100, Benchmark(1)) for seconds in (0.0, 1e-4))
    assert float(slow.ttft_s) == pytest.approx(0.1 * 0.5 * 65, rel=0.1)
    assert float(slow.ttft_s) > 3.0 * float(plain.ttft_s)
