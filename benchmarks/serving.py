"""Speed of the serving simulator: requests simulated per second of wall clock, on one core.

    python benchmarks/serving.py saturated --trace azure_conv.csv
    python benchmarks/serving.py fleet --trace azure_conv.csv
    python benchmarks/serving.py scaling --trace azure_conv.csv
    python benchmarks/serving.py day --trace azure_conv.csv --requests 10000000

The trace is the Azure LLM inference conversation trace of 2023 (``TIMESTAMP,ContextTokens,
GeneratedTokens``); its 19,366 requests are repeated.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial

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
    """Return requests per second of wall clock, and the simulated requests per second."""
    started = time.perf_counter()
    result = simulate(replicas, traffic, mode=mode, oversize="reject")
    spent = time.perf_counter() - started
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


def scaling(trace: str) -> None:
    """Cost per request over the length of the trace and over the number of replicas."""
    cost = llama_2_70b()
    for requests in (1_000, 10_000, 100_000, 1_000_000):
        spec = ReplicaSpec(cost, int(LLAMA_70B_KV_TOKENS), SCHEDULER)
        flow = load_traffic({"trace": trace, "requests": requests}).at_rate(3.0)
        each = 1e6 / timed(spec, flow, "fast")[0]
        print(f"1 replica, {requests:>9,} requests: {each:.1f} us each")
    for replicas in (1, 10, 100, 1000):
        spec = ReplicaSpec(cost, int(LLAMA_70B_KV_TOKENS), SCHEDULER, count=replicas)
        flow = load_traffic({"trace": trace, "requests": 100_000}).at_rate(3.0 * replicas)
        each = 1e6 / timed(spec, flow, "fast")[0]
        print(f"{replicas:>5} replicas, 100,000 requests: {each:.1f} us each")


def day_part(trace: str, requests: int, parts: int, part: int) -> Traffic:
    """One part's share of a day with a daily curve and the trace's lengths."""
    table = {"trace": trace, "arrivals": "diurnal", "rate": requests / 86_400 / parts,
             "requests": requests // parts}  # fmt: skip
    return load_traffic(table, seed=part)


def day(trace: str, requests: int, parts: int = 20, replicas: int = 80) -> None:
    """A day of ten million requests, in two processes."""
    spec = ReplicaSpec(llama_2_70b(), int(LLAMA_70B_KV_TOKENS), SCHEDULER, count=replicas)
    started = time.perf_counter()
    share = partial(day_part, trace, requests, parts)
    rows = simulate_parts(spec, share, parts, processes=2)
    spent = time.perf_counter() - started
    done = sum(row["finished"] + row["rejected"] for row in rows)
    peak = 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"a day of {done:,} requests on {replicas} replicas in {parts} parts: {spent:,.0f} s, "
          f"at most {peak:,.0f} MB in two processes")  # fmt: skip


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["saturated", "fleet", "scaling", "day"])
    parser.add_argument("--trace", required=True)
    parser.add_argument("--requests", type=int, default=200_000)
    options = parser.parse_args()
    if options.what == "saturated":
        saturated(options.trace, options.requests)
    elif options.what == "fleet":
        fleet(options.trace, options.requests)
    elif options.what == "day":
        day(options.trace, options.requests)
    else:
        scaling(options.trace)


if __name__ == "__main__":
    main()
