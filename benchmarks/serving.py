"""Speed of the serving simulator: requests simulated per second of core time.

    python benchmarks/serving.py saturated --trace azure_conv.csv
    python benchmarks/serving.py fleet --trace azure_conv.csv
    python benchmarks/serving.py scaling --trace azure_conv.csv --figures docs/images
    python benchmarks/serving.py day --trace azure_conv.csv --requests 10000000

The trace is the Azure LLM inference conversation trace of 2023 (``TIMESTAMP,ContextTokens,
GeneratedTokens``); its 19,366 requests are repeated.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from costsim.serving.fleet import ReplicaSpec
from costsim.serving.replications import simulate_parts
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost, StepCost
from costsim.serving.traffic import Traffic, load_traffic

SCHEDULER = Scheduler(max_num_seqs=256, max_num_batched_tokens=2048)
LLAMA_70B_KV_TOKENS = 4 * 80e9 * 0.9 / 327_680 - 141e9 / 327_680
"""Four accelerators of 80 GB, 141 GB of bf16 weights, 327,680 bytes of cache per token."""


def llama_2_70b() -> StepCost:
    """Llama-2-70B on 4 x 80 GB at 2 TB/s and 312 TFLOP/s each: a roofline, as an affine cost."""
    weights_s = 138e9 / (4 * 2.0e12 * 0.8)
    context_s = 327_680 / (4 * 2.0e12 * 0.8)
    prompt_s = 2 * 69e9 / (4 * 312e12 * 0.6)
    return AffineCost(weights_s, 2e-5, context_s, prompt_s, 1e-11)


def timed(replicas: ReplicaSpec, traffic: Traffic, mode: str) -> tuple[float, float]:
    """Return requests per second of core time, and the simulated requests per second."""
    started = time.process_time()
    result = simulate(replicas, traffic, mode=mode, oversize="reject")
    spent = time.process_time() - started
    return len(result) / spent, result.summary()["requests_per_s"]


def saturated(trace: str, requests: int) -> None:
    """One replica that is offered far more than it can serve."""
    spec = ReplicaSpec(llama_2_70b(), int(LLAMA_70B_KV_TOKENS), SCHEDULER)
    flow = load_traffic({"trace": trace, "requests": requests}).at_rate(20.0)
    fast, served = timed(spec, flow, "fast")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    slow, _ = timed(spec, load_traffic({"trace": trace, "requests": 10_000}).at_rate(20.0), "steps")
    print(f"saturated replica, {requests} requests offered at 20/s, served at {served:.2f}/s:")
    print(f"  fast {fast:,.0f} requests/s; step by step {slow:,.0f}; ratio {fast / slow:.1f}")
    print(f"  peak memory {peak:,.0f} MB")


def fleet(trace: str, requests: int, replicas: int = 100) -> None:
    """A fleet with least-outstanding routing at about 70 % of its capacity."""
    spec = ReplicaSpec(llama_2_70b(), int(LLAMA_70B_KV_TOKENS), SCHEDULER, count=replicas)
    flow = load_traffic({"trace": trace, "requests": requests}).at_rate(3.0 * replicas)
    fast, _ = timed(spec, flow, "fast")
    few = load_traffic({"trace": trace, "requests": 20_000}).at_rate(3.0 * replicas)
    slow, _ = timed(spec, few, "steps")
    print(f"fleet of {replicas}: fast {fast:,.0f} requests/s; step by step {slow:,.0f}; "
          f"ratio {fast / slow:.1f}")  # fmt: skip


def scaling(trace: str, figures: Path) -> None:
    """Cost per request over the length of the trace and over the number of replicas."""
    cost = llama_2_70b()
    lengths, fleets = (1_000, 10_000, 100_000, 1_000_000), (1, 10, 100, 1000)
    by_length, by_fleet = [], []
    for requests in lengths:
        spec = ReplicaSpec(cost, int(LLAMA_70B_KV_TOKENS), SCHEDULER)
        flow = load_traffic({"trace": trace, "requests": requests}).at_rate(3.0)
        by_length.append(1e6 / timed(spec, flow, "fast")[0])
        print(f"1 replica, {requests:>9,} requests: {by_length[-1]:.1f} us each")
    for replicas in fleets:
        spec = ReplicaSpec(cost, int(LLAMA_70B_KV_TOKENS), SCHEDULER, count=replicas)
        flow = load_traffic({"trace": trace, "requests": 100_000}).at_rate(3.0 * replicas)
        by_fleet.append(1e6 / timed(spec, flow, "fast")[0])
        print(f"{replicas:>5} replicas, 100,000 requests: {by_fleet[-1]:.1f} us each")
    for path in draw(lengths, by_length, fleets, by_fleet, figures):
        print(f"written: {path}")


def draw(
    lengths: Sequence[int], by_length: Sequence[float], fleets: Sequence[int],
    by_fleet: Sequence[float], folder: Path,
) -> list[Path]:
    """Draw the cost of a simulated request over trace length and over replicas."""
    from costsim.reports.style import figure, save

    foot = ("Azure LLM inference conversation trace 2023, repeated; Llama-2-70B on 4 accelerators "
            "a replica, 3 requests/s each; one core")
    panels = ((lengths, by_length, "requests (one replica)"),
              (fleets, by_fleet, "replicas (100,000 requests)"))
    with figure("Cost of simulating one request", foot, columns=2, height=4.2) as (drawn, axes):
        for axis, (at, each, text) in zip(axes, panels, strict=True):
            axis.plot(at, each, "o-", color="#0072B2", lw=1.8)
            axis.set_xscale("log")
            axis.set_ylim(0, 1.25 * max(*by_length, *by_fleet))
            axis.set_xlabel(text)
            axis.set_ylabel("core time per request [µs]")
        return save(drawn, folder, "serving_scaling")


def day_part(trace: str, requests: int, parts: int, part: int) -> Traffic:
    """One part's share of a day with a daily curve and the trace's lengths."""
    table = {"trace": trace, "arrivals": "diurnal", "rate": requests / 86_400 / parts,
             "requests": requests // parts}  # fmt: skip
    return load_traffic(table, seed=part)


def day(trace: str, requests: int, part: int = 500_000, each: int = 4) -> None:
    """A day of requests in two processes, in parts of 500,000 on four replicas."""
    parts = max(1, round(requests / part))
    replicas = each * parts
    spec = ReplicaSpec(llama_2_70b(), int(LLAMA_70B_KV_TOKENS), SCHEDULER, count=replicas)
    started, parents = time.perf_counter(), _core_s()
    share = partial(day_part, trace, requests, parts)
    rows = simulate_parts(spec, share, parts, processes=2)
    spent = time.perf_counter() - started
    done = sum(row["finished"] + row["rejected"] for row in rows)
    peak = 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"a day of {done:,} requests on {replicas} replicas in {parts} parts: {spent:,.0f} s "
          f"({_core_s() - parents:,.0f} s of core time), at most {peak:,.0f} MB in two "
          "processes")  # fmt: skip


def _core_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["saturated", "fleet", "scaling", "day"])
    parser.add_argument("--trace", required=True)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--figures", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.what == "saturated":
        saturated(options.trace, options.requests)
    elif options.what == "fleet":
        fleet(options.trace, options.requests)
    elif options.what == "day":
        day(options.trace, options.requests)
    else:
        scaling(options.trace, options.figures)


if __name__ == "__main__":
    main()
