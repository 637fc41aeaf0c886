"""Checkpoints, replications, limits, results and everything a user may get wrong."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.serving.checkpoint import Checkpoint, run_resumably, scenario_key
from costsim.serving.confidence import batch_interval
from costsim.serving.controllers import Autoscaler
from costsim.serving.faults import Failures, RollingRestart
from costsim.serving.fleet import Admission, Fleet, Link, ReplicaSpec
from costsim.serving.operations import load_operations
from costsim.serving.replications import replicate, simulate_parts
from costsim.serving.results import SimulationResult
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import build_fleet, simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Sessions, SloClass, Traffic, generated, load_traffic, merged

COST = AffineCost(0.0201, 1.1e-4, 1.3e-8, 1.7e-5)
SPEC = ReplicaSpec(COST, 100_000, Scheduler(max_num_seqs=64), count=2)


def traffic(seed: int = 0, count: int = 400, rate: float = 5.0) -> Traffic:
    table = {"arrivals": "poisson", "rate": rate, "requests": count, "input_tokens": 300,
             "output_tokens": 60, "length_cv": 0.8}  # fmt: skip
    return load_traffic(table, seed=seed)


def one_run(seed: int) -> SimulationResult:
    return simulate(SPEC, traffic(seed, 100), seed=seed)


def equal(one: SimulationResult, other: SimulationResult) -> None:
    for name, values in one.table.items():
        assert np.array_equal(values, other.table[name], equal_nan=True), name


def build() -> tuple[Fleet, list[Any]]:
    failures = Failures(mtbf_s=30.0, mttr_s=3.0, seed=1)
    return build_fleet([SPEC], traffic(count=12_000)), [failures]


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    key = scenario_key(SPEC, 0)
    whole = run_resumably(build, traffic(count=12_000), Checkpoint(tmp_path / "a", key))
    place = Checkpoint(tmp_path / "b", key)
    stops = 0
    while True:
        result = run_resumably(build, traffic(count=12_000), place, time_limit_s=0.05)
        if result.complete:
            break
        stops += 1
        assert stops < 500
    assert stops > 0
    equal(whole, result)
    assert not place.path.exists()


def test_a_foreign_or_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "a", "one")
    place.save(*build())
    with pytest.raises(InputError, match="another scenario"):
        Checkpoint(tmp_path / "a", "two").load()
    (tmp_path / "a").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no checkpoint"):
        place.load()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path in paths:
        one_run(3).write_requests(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(list(csv.DictReader(paths[0].open()))) == 100


def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    result = one_run(1)
    table = parquet.read_table(result.write_requests(tmp_path / "r.parquet"))
    assert np.allclose(table["finished"].to_numpy(), result.table["finished"])


def test_replications_in_processes_are_the_same() -> None:
    alone, together = replicate(one_run, [1, 2, 3]), replicate(one_run, [1, 2, 3], processes=2)
    assert alone.summaries == together.summaries
    low, high = alone.interval("tpot_s", "mean")
    assert low < alone.values("tpot_s", "mean").mean() < high


def part(number: int) -> Traffic:
    return traffic(number, 50)


def test_parts_of_a_fleet_add_up() -> None:
    rows = simulate_parts(replace(SPEC, count=4), part, parts=2, processes=2)
    assert sum(row["finished"] for row in rows) == 100
    with pytest.raises(InputError, match="cannot be cut"):
        simulate_parts(replace(SPEC, count=3), part, parts=2)


def test_batch_means_cover_the_mean_of_a_correlated_series() -> None:
    covered = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=8000)
        series = np.convolve(noise, np.full(20, 1 / 20))[:8000]
        low, high = batch_interval(series)
        covered += low <= 0.0 <= high
    assert covered >= 47  # 90 % of 60 is 54, three standard deviations of a binomial are 7


@pytest.mark.parametrize(("statistic", "share"), [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)])
def test_intervals_of_percentiles_cover_them(statistic: str, share: float) -> None:
    draw = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        low, high = batch_interval(draw.exponential(1.0, 2000), statistic)
        covered += low <= -np.log(1 - share) <= high
    assert 160 <= covered <= 193  # 90 % of 200 is 180, three standard deviations are 13
    assert np.isnan(batch_interval(draw.exponential(1.0, 300), "p99")[0])


def test_time_limit_and_until() -> None:
    long = simulate(SPEC, traffic(count=30_000), mode="steps", time_limit_s=0.2)
    assert not long.complete and long.summary()["unserved"] > 0
    short = simulate(SPEC, traffic(), until_s=5.0)
    assert short.duration_s == pytest.approx(5.0, abs=0.5)
    assert 0 < short.summary()["finished"] < 400


def test_timelines_progress_and_warmup() -> None:
    told: list[tuple[float, int, int]] = []
    result = simulate(SPEC, traffic(), sample_s=1.0, warmup_s=20.0,
                      progress=lambda *seen: told.append(seen))  # fmt: skip
    assert result.timelines["time_s"][1] == 1.0
    assert result.timelines["batch"].max() <= 128
    assert told[-1][1] == 400
    arrival = result.table["arrival"]
    assert result.counted.sum() == np.sum(arrival >= arrival[0] + 20.0)


def test_goodput_counts_what_meets_every_target() -> None:
    classes = [SloClass("chat", ttft_s=0.2, tpot_s=0.05), SloClass("batch", e2e_s=1e9)]
    result = simulate(SPEC, traffic().in_classes(classes))
    by_hand = (result.latency("ttft_s") <= 0.2) & (np.nan_to_num(result.latency("tpot_s")) <= 0.05)
    mask = result.table["tenant"] == 0
    expected = np.sum(by_hand & mask) / result.duration_s
    assert result.summary()["classes"]["chat"]["goodput_per_s"] == pytest.approx(expected)
    assert result.summary()["classes"]["batch"]["attainment"] == 1.0


def test_more_load_never_lowers_ttft_and_more_replicas_lower_it() -> None:
    means = [simulate(SPEC, traffic().at_rate(r)).statistics("ttft_s")["mean"] for r in (2, 8, 32)]
    assert means == sorted(means)
    crowd = traffic().at_rate(32)
    tails = [simulate(replace(SPEC, count=c), crowd).statistics("ttft_s")["p99"] for c in (1, 2, 4)]
    assert tails == sorted(tails, reverse=True)


def test_autoscaler_grows_and_shrinks() -> None:
    scaler = Autoscaler(most=8, every_s=5.0, cold_start_s=10.0, cool_down_s=20.0, slots=16)
    busy = traffic(count=1500, rate=30.0)
    quiet = generated(np.linspace(0, 400, 60), 100, 20)
    both = merged({"default": Traffic(
        np.concatenate([busy.arrival, quiet.arrival + 60]), np.r_[busy.prompt, quiet.prompt],
        np.r_[busy.output, quiet.output])})  # fmt: skip
    result = simulate(replace(SPEC, count=1), both, controllers=[scaler], sample_s=5.0)
    counts = result.timelines["replicas"]
    assert counts.max() > 2 and counts[-1] <= 2
    assert result.summary()["finished"] == len(both)


def test_predictive_and_queue_scalers_finish_all() -> None:
    for metric in ("predictive", "queue"):
        scaler = Autoscaler(metric=metric, target=1.0, most=6, every_s=3.0, cold_start_s=5.0)
        result = simulate(replace(SPEC, count=1), traffic(rate=40.0), controllers=[scaler])
        assert result.summary()["finished"] == 400


def test_failures_lose_work_and_retries_finish_it() -> None:
    failures = Failures(mtbf_s=10.0, mttr_s=2.0, seed=3)
    result = simulate(SPEC, traffic(), controllers=[failures], retries=100, invariants=True)
    assert failures.failed > 3 and result.summary()["retries"] > 0
    assert result.summary()["finished"] == 400
    none = simulate(SPEC, traffic(), controllers=[Failures(10.0, 2.0, seed=3)], retries=0)
    assert none.summary()["failed"] > 0


def test_rolling_restart_loses_nothing() -> None:
    restart = RollingRestart(start_s=10.0, down_s=5.0)
    result = simulate(SPEC, traffic(), controllers=[restart])
    assert result.summary()["finished"] == 400 and result.summary()["retries"] == 0
    assert restart.at == 2


def test_shedding_protects_the_first_class() -> None:
    classes = [SloClass("paid", priority=0, share=0.5), SloClass("free", priority=1, share=0.5)]
    flow = traffic(rate=100.0).in_classes(classes)
    result = simulate(SPEC, flow, admission=Admission(max_outstanding=20, protected=0.5))
    shed = result.table["status"] == 4
    free = result.table["tenant"] == 1
    assert shed[free].mean() > shed[~free].mean() > 0


def test_prefix_cache_of_the_mooncake_trace(shared_data: Path) -> None:
    """An endless cache finds 36.6 % of the blocks of the conversation trace (counted by hash)."""
    flow = load_traffic({"trace": str(shared_data / "traces/mooncake_conversation.jsonl")})
    spec = ReplicaSpec(AffineCost(1e-4), 10**10, Scheduler(prefix_cache=True, max_num_seqs=64))
    result = simulate(spec, flow)
    blocks = sum(len(hashes) for hashes in flow.block_hashes or ())
    assert result.table["cached"].sum() / 512 / blocks == pytest.approx(0.366, abs=0.02)
    small = simulate(replace(spec, kv_tokens=3_000_000), flow)
    assert small.table["cached"].sum() < 0.9 * result.table["cached"].sum()


def test_disaggregation_waits_for_the_link() -> None:
    def mean_gap(bandwidth: float) -> float:
        specs = [replace(SPEC, count=1, role="prefill", kv_bytes_per_token=1e5),
                 replace(SPEC, count=1, role="decode")]  # fmt: skip
        result = simulate(specs, traffic(), link=Link(bandwidth), invariants=True)
        assert result.summary()["finished"] == 400
        return float(np.mean(result.latency("e2e_s")))

    assert mean_gap(1e12) < mean_gap(3e8) < mean_gap(1.6e8)


def test_sessions_grow_and_keep_to_their_replica() -> None:
    rules = Sessions(turns=4, think_s=2.0, prompt_tokens=50, output_tokens=20)
    flow = replace(traffic(count=50), sessions=rules)
    result = simulate(SPEC, flow, router="session_affinity")
    assert len(result) == 200
    prompts = result.table["prompt"][50:]
    assert np.all(prompts >= 70)


def test_a_closed_loop_ends_with_its_duration() -> None:
    table = {"input_tokens": 50, "output_tokens": 20, "duration_s": 60.0,
             "sessions": {"users": 8, "think_s": 1.0, "grows": False}}  # fmt: skip
    result = simulate(SPEC, load_traffic(table))
    assert result.summary()["unserved"] == 0 and 200 < len(result) < 480
    endless = {key: value for key, value in table.items() if key != "duration_s"}
    refused("never end", simulate, SPEC, load_traffic(endless))


def test_operations_from_a_table() -> None:
    found = load_operations({
        "router": "power_of_two", "failures": {"mtbf_s": 20.0, "mttr_s": 2.0},
        "autoscaler": {"most": 4, "every_s": 5.0}, "admission": {"dispatch_limit": 8},
        "rolling_restart": {"start_s": 5.0, "down_s": 1.0}, "link": {"bytes_per_s": 1e9},
    })  # fmt: skip
    result = simulate(SPEC, traffic(), **found)
    assert result.summary()["finished"] == 400
    refused("'autoscaler.mots'; did you mean 'most'", load_operations, {"autoscaler": {"mots": 3}})
    refused("mtbf_s", load_operations, {"failures": {"mtbf_s": -1.0, "mttr_s": 1.0}})


def refused(text: str, call: Any, *arguments: Any, **keywords: Any) -> None:
    with pytest.raises(InputError, match=text) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)


def test_what_can_never_be_served_is_said_before_the_start() -> None:
    flow = traffic(count=10)
    refused("no replicas", simulate, replace(SPEC, count=0), flow)
    refused("less than one block", simulate, replace(SPEC, kv_tokens=3), flow)
    refused("the longest that", simulate, replace(SPEC, kv_tokens=64), flow)
    refused("unknown router 'round_robbin'; did you", simulate, SPEC, flow, router="round_robbin")
    refused("unknown mode", simulate, SPEC, flow, mode="slow")
    refused("unknown scheduling policy", Scheduler, policy="vlm")
    refused("must be at least 1", Scheduler, max_num_seqs=0)
    refused("each running request needs", Scheduler, max_num_seqs=64, max_num_batched_tokens=8)
    refused("'prefill' and", simulate, replace(SPEC, role="prefill"), flow)
    refused("unknown pool", simulate, replace(SPEC, pool="other"), flow)
    refused("mttr_s", simulate, SPEC, flow, controllers=[Failures(10.0, float("inf"))])
    refused("least <= most", simulate, SPEC, flow, controllers=[Autoscaler(most=0)])


def test_too_long_requests_can_be_rejected_one_by_one() -> None:
    flow = generated([0.0, 1.0, 2.0], [10, 5000, 10], 5)
    result = simulate(replace(SPEC, kv_tokens=1600), flow, oversize="reject")
    assert result.counts()["rejected"] == 1 and result.counts()["finished"] == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rate": -1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rat": 3.0}, "unknown key 'rat'; did you mean 'rate'"),
        ({"arrivals": "possion"}, "arrivals"),
        ({"requests": 0}, "give requests or duration_s"),
        ({"input_tokens": -5}, "input_tokens"),
        ({"arrivals": "gamma", "cv": 0.0}, "cv"),
        ({"arrivals": "curve", "curve": [0.0, 0.0]}, "nothing ever arrives"),
    ],
)
def test_bad_traffic_tables(change: dict[str, Any], text: str) -> None:
    table = {"arrivals": "poisson", "rate": 1.0, "requests": 5, "input_tokens": 5,
             "output_tokens": 5}  # fmt: skip
    refused(text, load_traffic, table | change)
