"""Speed of the vectorised model: operating points per second on one core.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --points 400000 --single 100

Sweeps Llama-3.1-70B over batch x context x tensor parallelism x hardware as one call per
hardware (each has its own kernel calibration; TP, batch and context are axes of one array), then
computes a sample of the same points one call at a time and compares figures and time.

What a point costs at best: the steps' formulas are some 1,000 array operations; those that depend
on all of batch, context and TP (attention, the closed loop) are about 600, at roughly 1 ns per
operation and element that fits in cache. That is the limit printed at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.steady_state import OperatingPoint, operating_point
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model

MODEL = "llama-3.1-70b"
HARDWARE = ("a100_sxm_80gb", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x")
TP = np.array([1, 2, 4, 8])
OSL = 256.0
FULL_SIZE_OPERATIONS, SECONDS_PER_OPERATION = 600, 1e-9


def axes(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return batches and prompt lengths whose product with TP and hardware gives ``points``."""
    each = int(np.ceil(np.sqrt(points / (len(HARDWARE) * len(TP)))))
    return np.linspace(1, 512, each), np.linspace(128, 32_768, each)


def deployments() -> Iterator[Deployment]:
    """Yield the deployment on each hardware, with all tensor-parallel degrees on an axis."""
    model = load_model(MODEL)
    for name in HARDWARE:
        yield deploy(model, load_hardware(name), Layout(tp=TP[:, None, None]))


def sweep(points: int, rows: int = 64) -> tuple[float, float, int, list[list[OperatingPoint]]]:
    """Return wall and processor seconds, points, results; ``rows`` batches stay in cache."""
    batches, contexts = axes(points)
    ready = list(deployments())
    started, worked, done = time.perf_counter(), time.process_time(), []
    for deployment in ready:
        done.append([
            operating_point(deployment, batches[i : i + rows][:, None], contexts[None, :], OSL,
                            detailed=False)
            for i in range(0, len(batches), rows)
        ])
    spent, busy = time.perf_counter() - started, time.process_time() - worked
    return spent, busy, len(ready) * len(TP) * len(batches) * len(contexts), done


def single(points: int, count: int, done: list[list[OperatingPoint]], rows: int = 64) -> float:
    """Return seconds per point, one call at a time; the figures are compared with the sweep's."""
    batches, contexts = axes(points)
    random, ready, worst = np.random.default_rng(0), list(deployments()), 0.0
    started = time.perf_counter()
    for _ in range(count):
        h, t = random.integers(len(ready)), random.integers(len(TP))
        b, c = random.integers(len(batches)), random.integers(len(contexts))
        one = ready[h].with_changes(layout=Layout(tp=int(TP[t])))
        point = operating_point(one, float(batches[b]), float(contexts[c]), OSL)
        swept = done[h][b // rows].tpot_s[t, b % rows, c]
        worst = max(worst, abs(float(point.tpot_s) / float(swept) - 1.0))
    spent = time.perf_counter() - started
    if worst > 1e-9:
        raise SystemExit(f"scalar and array calls differ by {worst:.1e}")
    return spent / count


def main() -> None:
    """Run the sweep and print its speed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=400_000)
    options.add_argument("--single", type=int, default=100, help="points computed one at a time")
    given = options.parse_args()
    spent, busy, count, done = sweep(given.points)
    each = single(given.points, given.single, done)
    print(f"{count} operating points of {MODEL} in {spent:.2f} s: {count / spent:,.0f} per second")
    print(f"processor time {busy:.2f} s: {count / busy:,.0f} per second of one core")
    faster = each * count / spent
    print(f"one call at a time: {1 / each:,.0f} per second; the sweep is {faster:,.0f} x faster")
    limit = 1.0 / (FULL_SIZE_OPERATIONS * SECONDS_PER_OPERATION)
    print(f"expected limit: about {limit:,.0f} per second "
          f"({FULL_SIZE_OPERATIONS} full-size operations of {SECONDS_PER_OPERATION * 1e9:.0f} ns)")


if __name__ == "__main__":
    main()
