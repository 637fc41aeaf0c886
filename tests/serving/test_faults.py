"""What goes wrong in a fleet or in its traffic: a clear end each time, and never a hang."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.serving.controllers import Autoscaler
from costsim.serving.faults import Failures, RollingRestart
from costsim.serving.fleet import Admission, ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import build_fleet, simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traces import read_trace
from costsim.serving.traffic import Sessions, Traffic, generated, load_traffic, merged

COST = AffineCost(0.0201, 1.1e-4, 1.3e-8, 1.7e-5)
SPEC = ReplicaSpec(COST, 20_000, Scheduler(max_num_seqs=16), count=2)


def poisson(count: int = 200, rate: float = 5.0, **more: Any) -> Traffic:
    return load_traffic({"arrivals": "poisson", "rate": rate, "requests": count,
                         "input_tokens": 200, "output_tokens": 40, **more})  # fmt: skip


def accounted(result: SimulationResult) -> None:
    assert sum(result.counts().values()) == len(result)


def test_users_who_are_refused_and_do_not_think_come_again_later() -> None:
    rules = Sessions(users=50, grows=False, until_s=30.0)
    flow = generated(np.zeros(50), 100, 40, sessions=rules)
    result = simulate(SPEC, flow, admission=Admission(max_outstanding=5), invariants=True)
    assert 100 < result.counts()["rejected"] < 50 * 31
    assert result.summary()["finished"] > 100


def test_a_conversation_that_outgrows_the_cache_ends() -> None:
    rules = Sessions(turns=50, prompt_tokens=800)
    flow = generated(np.zeros(3), 900, 40, sessions=rules)
    result = simulate(SPEC, flow, invariants=True)
    assert result.counts()["rejected"] == 3
    assert result.table["prompt"][result.table["status"] == 3].max() < 20_000
    endless = replace(rules, turns=0, until_s=300.0)
    again = simulate(SPEC, replace(flow, sessions=endless))
    assert again.counts()["rejected"] > 3 and again.summary()["unserved"] == 0
    assert np.sum(again.table["prompt"] == 900) > 3  # first prompts of new conversations


def test_all_replicas_down_for_long() -> None:
    class Outage(Failures):
        """All nodes fail at once, for ten thousand seconds."""

        def begin(self, fleet: Any, now: float) -> None:
            super().begin(fleet, now)
            self.plan = [(10.0, at, True) for at in range(len(self.nodes))]
            self.next_time = 10.0

        def act(self, fleet: Any, now: float) -> None:
            super().act(fleet, now)
            down = [(10_010.0, at, fails) for _, at, fails in self.plan if not fails]
            self.plan = down or self.plan
            self.next_time = self.plan[0][0]

    result = simulate(SPEC, poisson(), controllers=[Outage(1e9, 1e4)], invariants=True)
    assert result.counts()["finished"] == 200
    assert result.statistics("ttft_s")["p99"] > 9_900
    cut = simulate(SPEC, poisson(), controllers=[Outage(1e9, 1e4)], until_s=500.0)
    assert cut.summary()["unserved"] > 100 and cut.duration_s == pytest.approx(500, abs=2)


def test_failures_so_frequent_that_nothing_finishes_end() -> None:
    started = time.monotonic()
    hopeless = [Failures(mtbf_s=0.05, mttr_s=0.05)]
    result = simulate(SPEC, poisson(100), controllers=hopeless, retries=3)
    accounted(result)
    assert result.counts()["failed"] > 50
    endless = simulate(SPEC, poisson(100), controllers=[Failures(0.05, 0.05)], retries=10**9,
                       time_limit_s=0.5)  # fmt: skip
    assert not endless.complete
    assert time.monotonic() - started < 60


def test_overload_is_a_result() -> None:
    flow = poisson(2000, rate=400.0)
    result = simulate(SPEC, flow, invariants=True)
    assert result.summary()["finished"] == 2000
    waits = result.latency("queue_s")
    assert waits[-200:].mean() > 3 * waits[:500].mean()
    assert result.summary()["requests_per_s"] < 200


@pytest.mark.parametrize(("size", "nodes"), [(0, 6), (8, 3), (2, 12)])
def test_replicas_of_a_node_fail_together(size: int, nodes: int) -> None:
    spec = replace(SPEC, count=6, accelerators=4)
    fleet = build_fleet([spec], poisson(10))
    failures = Failures(100.0, 10.0, node_accelerators=size)
    failures.begin(fleet, 0.0)
    assert len(failures.nodes) == nodes
    first = failures.nodes[0]
    failures.plan, failures.next_time = [(1.0, 0, True)], 1.0
    fleet.now = 1.0
    failures.act(fleet, 1.0)
    assert {r.index for r in fleet.replicas if not r.up} == set(first)
    fleet.now = 2.0
    failures.plan = [(2.0, 0, False)]
    failures.act(fleet, 2.0)
    assert all(r.up for r in fleet.replicas)


def test_a_replica_over_two_nodes_waits_for_both() -> None:
    fleet = build_fleet([replace(SPEC, count=1, accelerators=16)], poisson(10))
    failures = Failures(100.0, 10.0, node_accelerators=8)
    failures.begin(fleet, 0.0)
    assert failures.nodes == [[0], [0]]
    for now, node, fails, up in ((1, 0, True, False), (2, 1, True, False), (3, 0, False, False),
                                 (4, 1, False, True)):  # fmt: skip
        fleet.now = float(now)
        failures.plan = [(float(now), node, fails)]
        failures.act(fleet, float(now))
        assert fleet.replicas[0].up is up


def test_restarts_failures_and_scaling_at_once_lose_nothing() -> None:
    for seed in range(6):
        controllers = [
            RollingRestart(start_s=5.0, down_s=3.0), Failures(20.0, 4.0, seed, node_accelerators=2),
            Autoscaler(most=5, every_s=2.0, cold_start_s=3.0, cool_down_s=4.0, slots=4),
        ]  # fmt: skip
        result = simulate(SPEC, poisson(300), controllers=controllers, retries=50, seed=seed,
                          invariants=True)  # fmt: skip
        assert result.counts()["finished"] == 300


def test_a_time_limit_holds() -> None:
    started = time.monotonic()
    result = simulate(SPEC, poisson(400_000, rate=20.0), time_limit_s=0.3)
    assert not result.complete and time.monotonic() - started < 20
    accounted(result)


def test_warmup_leaves_out_requests_and_what_replicas_did() -> None:
    flow = poisson(4000, rate=20.0)
    slow = replace(flow, prompt=np.where(np.arange(4000) < 400, 4000, 200))
    whole, cut = simulate(SPEC, slow), simulate(SPEC, slow, warmup_s=60.0)
    plain = simulate(SPEC, flow)
    assert cut.statistics("ttft_s")["mean"] < 0.5 * whole.statistics("ttft_s")["mean"]
    assert cut.statistics("itl_s")["p99"] == pytest.approx(plain.statistics("itl_s")["p99"], rel=.1)
    assert cut.accelerator_s == pytest.approx(2 * (cut.duration_s - 60.0), rel=0.01)
    assert cut.utilisation == pytest.approx(plain.utilisation, rel=0.05)
    with pytest.raises(InputError, match="none would be left"):
        simulate(SPEC, flow, warmup_s=1e6)


def test_pools_with_sessions_and_classes_of_their_own() -> None:
    one = replace(poisson(50), sessions=Sessions(turns=3, prompt_tokens=50))
    other = poisson(80)
    flow = merged({"chat": one, "code": other})
    specs = [replace(SPEC, pool="chat"), replace(SPEC, pool="code")]
    result = simulate(specs, flow, invariants=True, router={"chat": "session_affinity"})
    pools = result.summary()["pools"]
    assert (pools["chat"]["requests"], pools["code"]["requests"]) == (150, 80)
    assert set(result.summary()["classes"]) == {"chat", "code"}


def test_a_growing_conversation_finds_its_prefix_on_its_replica() -> None:
    cached = replace(SPEC, kv_tokens=400_000,
                     scheduler=Scheduler(max_num_seqs=16, prefix_cache=True))  # fmt: skip
    flow = replace(poisson(60), sessions=Sessions(turns=5, think_s=1.0, prompt_tokens=200))
    alone = simulate(replace(cached, count=1), flow, invariants=True)
    # What came before turns two to five (less the last token, not computed), in blocks of 64.
    before = sum((240 * turn - 1) // 64 * 64 for turn in range(1, 5))
    prompts = sum(200 + 240 * turn for turn in range(5))
    assert alone.summary()["prefix_hit_share"] == pytest.approx(before / prompts)
    kept = simulate(cached, flow, router="session_affinity").summary()["prefix_hit_share"]
    spread = simulate(cached, flow, router="round_robin").summary()["prefix_hit_share"]
    assert spread < 0.8 * kept


def test_system_prompts_are_cached_once_each() -> None:
    spec = replace(SPEC, count=1, scheduler=Scheduler(max_num_seqs=16, prefix_cache=True))
    shared = simulate(spec, poisson(prefix_tokens=128))
    assert shared.table["cached"][5:].min() == 128
    of_four = simulate(spec, poisson(prefix_tokens=128, prefixes=4))
    assert (of_four.table["cached"] == 0).sum() >= 4


def test_images_take_the_encoder() -> None:
    flow = poisson(50, rate=0.5, images=2, image_tokens=100)
    plain, seen = simulate(SPEC, flow), simulate(replace(SPEC, image_s=0.25), flow)
    assert flow.prompt[0] == 400
    added = seen.latency("ttft_s") - plain.latency("ttft_s")
    assert added.min() == pytest.approx(0.5, abs=0.05)
    ranks = replace(SPEC, image_s=0.25, ranks=2, count=1)
    assert simulate(ranks, flow).latency("ttft_s").min() > 0.5


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    header = "arrival_s,input_tokens,output_tokens\n"
    for name, content, message in (
        ("utf16.csv", (header + "1,2,3\n").encode("utf-16"), "not UTF-8"),
        ("nul.csv", (header + "1,2\0,3\n").encode(), "trace|NUL|not a number"),
        ("wide.csv", (header + "1," + "9" * 200_000 + ",3\n").encode(), "field larger"),
        ("deep.jsonl", b"[" * 100_000, "nested too deeply|malformed"),
        ("hash.jsonl", b'{"timestamp":0,"input_length":5,"output_length":5,"hash_ids":[Infinity]}',
         "hash_ids must be"),
        ("inf.jsonl", b'{"timestamp":Infinity,"input_length":5,"output_length":5}', "finite"),
        ("share.json", b'[{"conversations": [', "malformed JSON"),
        ("object.json", b'{"a": 1}', "a JSON list"), ("none.json", b"[]", "no conversation"),
        ("headless.csv", b"1,2,3\n4,5,6\n", "column 'arrival_s' is missing"),
        ("huge.csv", (header + "1,1e300,3\n").encode(), "must be a count of tokens"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, message)
    refused(tmp_path, "no such file")


def test_a_long_trace_needs_only_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    count = 60_000
    rows = (f"{0.01 * i:.2f},{i % 4000},{i % 300 + 1}\n" for i in range(count))
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(rows))
    tracemalloc.start()
    trace = read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(trace) == count
    assert peak < 100 * count  # bytes; ten million rows in 1 GB


def test_a_long_conversation_file_is_read_entry_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    entry = '{"conversations": [{"value": "' + "é" * 4000 + '"}, {"value": "' + "b" * 400 + '"}]}'
    path.write_text("[" + ",\n".join([entry] * 3000) + "]")
    tracemalloc.start()
    trace = read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(trace) == 3000 and trace.prompt[0] == 1000 and trace.output[0] == 100
    assert peak < 0.5 * path.stat().st_size


def test_requests_of_one_moment_in_any_order_add_up_to_the_same() -> None:
    """Ties: the same requests in another order leave totals alone."""
    draw = np.random.default_rng(1)
    prompt, output = draw.integers(1, 400, 64), draw.integers(1, 60, 64)
    totals = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(64)
        result = simulate(SPEC, generated(np.zeros(64), prompt[order], output[order]))
        table = result.table
        totals.append((result.counts(), table["generated"].sum(), table["prompt"].sum()))
    assert totals[0] == totals[1] == totals[2]


def test_the_router_does_not_know_the_answers_length() -> None:
    """Which replica gets a request does not change with answers that no one has seen yet."""
    flow = poisson(40, rate=1000.0)
    longer = replace(flow, output=flow.output * 3)
    for router in ("least_outstanding", "least_kv", "power_of_two", "round_robin"):
        one, other = (simulate(SPEC, f, router=router, seed=3) for f in (flow, longer))
        begun = int(np.searchsorted(flow.arrival, np.nanmin(one.table["finished"])))
        assert begun > 20
        assert np.array_equal(one.table["replica"][:begun], other.table["replica"][:begun])


def test_parquet_needs_a_library_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    result = simulate(SPEC, poisson(20))
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match="Parquet needs pyarrow"):
        result.write_requests(tmp_path / "requests.parquet")
