"""``costsim simulate`` as a user calls it: whole fleets, every option, and runs that are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("simulate", "llama-3.1-8b", "h100_sxm", "--isl", "200", "--osl", "40", "--rate", "5",
         "--requests", "150")  # fmt: skip

FLEET = """
title = "Chat and code"
warmup_s = "5 s"
sample_s = "1 s"

[[replicas]]
pool = "chat"
model = "llama-3.1-8b"
hardware = "h100_sxm"
count = 2
scheduler = { prefix_cache = true, order = "priority", max_num_seqs = 64 }

[[replicas]]
pool = "chat"
model = "llama-3.1-8b"
hardware = "l40s"
scheduler = { prefix_cache = true, order = "priority", max_num_seqs = 64 }

[[replicas]]
pool = "code"
model = "qwen3-30b-a3b"
hardware = "h200_sxm"
role = "prefill"

[[replicas]]
pool = "code"
model = "qwen3-30b-a3b"
hardware = "h200_sxm"
role = "decode"

[pools.chat]
router = "session_affinity"
autoscaler = { most = 5, every_s = "2 s", cold_start_s = "5 s", slots = 4 }
admission = { max_outstanding = 100, protected = 0.3 }

[pools.chat.traffic]
arrivals = "poisson"
rate = "4 req/s"
requests = 60
input_tokens = 300
output_tokens = 60
length_cv = 0.8
prefix_tokens = 128
classes = [
    { name = "paid", share = 0.4, priority = 0, ttft_s = "1 s", tpot_s = "50 ms" },
    { name = "free", share = 0.6, priority = 1, ttft_s = "5 s", timeout_s = "60 s" },
]
sessions = { turns = 2, think_s = "1 s", prompt_tokens = 100 }

[pools.code]
link = { bytes_per_s = "50 GB/s", latency_s = "10 us" }

[pools.code.traffic]
trace = "trace.csv"

[failures]
mtbf_s = "2 min"
mttr_s = "5 s"

[rolling_restart]
start_s = "10 s"
down_s = "2 s"
"""
TRACE = "arrival_s,input_tokens,output_tokens\n" + "".join(
    f"{0.2 * i},{100 + 7 * i % 900},{5 + i % 40}\n" for i in range(80)
)


def write_fleet(folder: Path) -> Path:
    (folder / "trace.csv").write_text(TRACE)
    (folder / "fleet.toml").write_text(FLEET)
    return folder / "fleet.toml"


def test_a_fleet_of_pools_models_and_hardware(run: Run, tmp_path: Path) -> None:
    path = write_fleet(tmp_path)
    done = run("simulate", "--fleet", str(path), "--invariants", "--output", "out", "--json")
    data = json.loads(done.stdout)
    assert done.returncode == 0
    assert data["requests"] == data["finished"] + data["rejected"] + data["timed_out"] == 200
    assert [part["hardware"] for part in data["fleet"]] == [
        "h100_sxm", "l40s", "h200_sxm", "h200_sxm"]  # fmt: skip
    assert set(data["classes"]) == {"chat: paid", "chat: free", "code"}
    assert data["prefix_hit_share"] > 0.1
    for kind in ("classes", "pools"):
        assert sum(row["usd"] for row in data[kind].values()) == pytest.approx(data["usd"])
    assert sum(part["usd"][1] for part in data["fleet"]) == pytest.approx(data["usd"])
    with (tmp_path / "out/requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200 and {row["pool"] for row in rows} == {"chat", "code"}
    assert sum(float(row["usd"]) for row in rows) == pytest.approx(data["usd"])
    with (tmp_path / "out/timelines.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {"queue", "batch", "kv_occupancy", "replicas", "power_w", "usd_per_hour",
            "queue_chat", "replicas_code"} <= set(lines[0])  # fmt: skip
    assert float(lines[0]["usd_per_hour"]) > 10
    assert (tmp_path / "out/timelines.png").stat().st_size > 10_000


def test_every_setting_can_be_set_and_a_wrong_one_is_named(run: Run, tmp_path: Path) -> None:
    path = str(write_fleet(tmp_path))
    wrong = (
        ("pools.chat.router=round_robbin", "did you mean 'round_robin'"),
        ("pools.chat.autoscaler.mots=3", "unknown key 'pools.chat.autoscaler.mots'"),
        ("replicas.0.scheduler.policy=vlm", "unknown scheduling policy 'vlm'"),
        ("replicas.0.model=llama-3.1-9b", "unknown model"),
        ("replicas.0.pool=chart", "unknown pool 'chart'; did you mean 'chat'"),
        ("replicas.0.tp=3", "does not divide the 32 attention heads"),
        ("replicas.9.tp=2", "there is no '9'"),
        ("failures.mtbf_s=-1", "failures.mtbf_s"),
        ("pools.code.traffic.trace=none.csv", "pool 'code': "),
        ("pools.chat.traffic.rate=nan", "rate"),
        ("warmup_s=1 d", "none would be left"),
        ("nonsense", "KEY=VALUE"),
    )
    for change, message in wrong:
        done = run("simulate", "--fleet", path, "--set", change)
        assert done.returncode == 2 and message in done.stderr, (change, done.stderr)
        assert done.stderr.count("\n") == 1, change


@pytest.mark.parametrize("args", [
    ("--policy", "static"), ("--policy", "orca"), ("--policy", "prefill_first"),
    ("--policy", "stall_free"), ("--max-num-seqs", "8", "--max-num-batched-tokens", "512"),
    ("--prefill", "1", "--decode", "2"), ("--autoscale", "1:4", "--allow-overload"),
    ("--mtbf", "20s", "--mttr", "2s", "--replicas", "3"), ("--warmup", "5s", "--until", "20s"),
    ("--replicas", "2", "--router", "power_of_two", "--sample", "2s"),
    ("--turns", "3", "--think", "1s", "--prefix-cache"), ("--timeout", "30ms"),
    ("--arrivals", "gamma", "--cv", "3"), ("--duration", "10s"), ("--steps",),
    ("--set", "replicas.0.scheduler.order=priority"), ("--ttft", "100ms"),
    ("--set", "replicas.0.scheduler.block_tokens=100"), ("--dp", "2"),
    ("--set", "replicas.0.model=gemma-3-4b", "--set", "pools.default.traffic.images=2"),
])  # fmt: skip
def test_options(run: Run, args: tuple[str, ...]) -> None:
    done = run(*SMALL, *args, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    parts = ("finished", "rejected", "timed_out", "failed", "unserved")
    assert data["requests"] == sum(data[name] for name in parts)


@pytest.mark.parametrize(("args", "message"), [
    (("--prefill", "1"), "go together"), (("--autoscale", "three"), "LEAST:MOST"),
    (("--rate", "5000"), "unstable load"), (("--turns", "100", "--rate", "20"), "unstable"),
    (("--set", "pools.default.traffic.images=1"), "takes no image input"),
    (("--checkpoint", "."), "this is a folder"), (("--isl", "200k"), "longer than the context"),
    (("--policy", "vlm"), "did you mean 'vllm'"), (("--replications", "0"), "positive"),
    (("--replicas", "0"), "positive"), (("--warmup", "2h"), "none would be left"),
])  # fmt: skip
def test_mistakes_are_one_line(run: Run, args: tuple[str, ...], message: str) -> None:
    done = run(*SMALL, *args)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_options_without_effect_are_refused(run: Run, tmp_path: Path) -> None:
    path = write_fleet(tmp_path)
    (tmp_path / "traffic.toml").write_text('trace = "trace.csv"\n')
    model = ("simulate", "llama-3.1-8b", "h100_sxm")
    for args, message in (
        (("simulate", "--fleet", str(path), "--rate", "5"), "--rate has no effect with --fleet"),
        ((*model, "--fleet", str(path)), "takes the place of MODEL"),
        ((*model, "--trace", "trace.csv", "--isl", "5"), "--isl has no effect with --trace"),
        ((*model, "--traffic", "traffic.toml", "--users", "5"), "--users has no effect with"),
        (("simulate", "llama-3.1-8b"), "MODEL and HARDWARE are needed"),
        (model, "needs --trace, --traffic, --rate or --users"),
    ):
        done = run(*args)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    done = run(*model, "--traffic", "traffic.toml", "--rate", "8", "--json")
    assert json.loads(done.stdout)["load"]["default"]["offered_requests_per_s"] == pytest.approx(8)


def test_replications_in_processes_are_the_same_as_one_after_the_other(run: Run) -> None:
    one, two = (json.loads(run(*SMALL, "--replications", "3", "--processes", n, "--json").stdout)
                for n in ("1", "2"))  # fmt: skip
    assert one == two
    low, high = one["intervals"]["ttft_s"]["p99"]
    assert low < one["ttft_s"]["p99"] < high
    assert [r["seed"] for r in one["runs"]] == [0, 1, 2]
    assert len({r["ttft_s"]["mean"] for r in one["runs"]}) == 3


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    args = [sys.executable, "-m", "costsim", "simulate", "llama-3.1-8b", "h100_sxm", "--isl", "100",
            "--osl", "20", "--rate", "40", "--requests", "50000", "--length-cv", "0.8", "--mtbf",
            "10min", "--mttr", "20s", "--replicas", "3", "--set", "checkpoint_every_s=0.2",
            "--json", "--sample", "20s", "--warmup", "60s"]  # fmt: skip
    env = os.environ | {"COSTSIM_HOME": str(tmp_path)}

    def files(folder: str) -> dict[str, bytes]:
        return {name: (tmp_path / folder / name).read_bytes()
                for name in ("simulation.json", "requests.csv", "timelines.csv")}  # fmt: skip

    subprocess.run([*args, "--output", "whole"], cwd=tmp_path, env=env, check=True,
                   capture_output=True)  # fmt: skip
    kept = ["--checkpoint", "state", "--output", "resumed"]
    killed = subprocess.Popen([*args, *kept], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    while not (tmp_path / "state").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (tmp_path / "state").exists() and not (tmp_path / "resumed").exists()
    subprocess.run([*args, *kept], cwd=tmp_path, env=env, check=True, capture_output=True)
    assert not (tmp_path / "state").exists()
    assert files("resumed") == files("whole")
    subprocess.run([*args, "--checkpoint", "state", "--time-limit", "0.3 s"],
                   cwd=tmp_path, env=env, check=True, capture_output=True)  # fmt: skip
    other = subprocess.run([*args, "--seed", "5", "--checkpoint", "state"], cwd=tmp_path, env=env,
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert other.returncode == 2 and "belongs to another scenario" in other.stderr
