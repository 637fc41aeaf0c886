"""Speed of planning and of uncertainty studies.

    python benchmarks/plan.py
    python benchmarks/plan.py --peer

Plans Llama-3.1-70B over 24 hours on 12 kinds of hardware, all layouts, precisions and batches,
aggregated and disaggregated, up to the simulated check; then studies one operating point with a
million draws. With ``--peer``, AIConfigurator's search for one GPU type and one model runs beside
it (benchmarks/peers/aiconfigurator.py; needs the extra ``silicon``).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model
from costsim.planning.plan import Plan, plan
from costsim.planning.targets import Target
from costsim.planning.uncertainty import point_inputs, study_point

MODEL = "llama-3.1-70b"
HARDWARE = ("a100_sxm_80gb", "h100_sxm", "h100_pcie", "h200_sxm", "h20", "b200_sxm", "b300_sxm",
            "gb200_nvl72", "l40s", "mi300x", "mi325x", "mi355x")  # fmt: skip
TERMS = ("on_demand", "reserved_1y", "reserved_3y")


def day(peak: float) -> np.ndarray:
    """Return requests/s of 24 hours with a peak in the afternoon."""
    return peak * (0.6 + 0.4 * np.cos((np.arange(24) - 15) / 24 * 2 * np.pi))


def timed_plan(peak: float) -> tuple[Plan, float]:
    """Return a plan without check and comparison, and the seconds that it took."""
    start = time.perf_counter()
    found = plan(
        MODEL, HARDWARE, traffic=day(peak), isl=1000, osl=250, terms=TERMS, check=False,
        compare=False, target=Target(ttft_p99_s=2.0, tpot_p99_s=0.05),
    )  # fmt: skip
    return found, time.perf_counter() - start


def timed_study(draws: int) -> float:
    """Return the seconds of a study of one operating point."""
    deployment = deploy(
        load_model(MODEL), load_hardware("h100_sxm"), Layout(tp=4),
        Precision.uniform("fp8", kv="fp8"), load_settings("vllm"),
    )  # fmt: skip
    inputs = point_inputs(deployment, 64, 1000, 250, price_log_error=0.25)
    start = time.perf_counter()
    study_point(deployment, batch=64, isl=1000, osl=250, usd_per_hour=3.0, inputs=inputs,
                draws=draws)  # fmt: skip
    return time.perf_counter() - start


def peer() -> str:
    """Return what the search of AIConfigurator says of the same model, one GPU type a case."""
    script = Path(__file__).parent / "peers" / "aiconfigurator.py"
    command = [sys.executable, str(script), "--case", MODEL]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ratio(said: str, seconds: float, points: int) -> str:
    """Return how a plan's time compares with the peer's searches of one kind of GPU each.

    Args:
        said: what `peer` returned. seconds, points: of the plan.
    """
    rows = re.findall(r"aiconfigurator +(\d+) points +([\d.]+) s", said)
    if not rows:
        return "AIConfigurator: no search was timed"
    times, counts = [float(t) for _, t in rows], [int(n) for n, _ in rows]
    each = sum(times) / sum(counts)
    return (f"AIConfigurator: {min(times):.2f} to {max(times):.2f} s for one kind of GPU and one "
            f"model, {1e3 * each:.2f} ms a point; the plan of {len(HARDWARE)} kinds takes "
            f"{seconds / np.mean(times):.1f} times as long in all, and a point "
            f"{each * points / seconds:.0f} times less")  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", type=float, default=100.0)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    timed_plan(1.0)  # profiles and calibrations are read once
    runs = [timed_plan(options.peak) for _ in range(options.repeats)]
    found, seconds = min(runs, key=lambda run: run[1])
    print(f"plan: {seconds:.2f} s for {found.problem.considered:,} operating points on "
          f"{len(HARDWARE)} kinds of hardware, 24 hours")  # fmt: skip
    print(f"  points {found.seconds['points']:.2f} s, solver {found.seconds['solve']:.2f} s, "
          f"gap {100 * found.solution.gap:.2f} %, to the LP bound "
          f"{100 * found.solution.lp_gap:.1f} %")  # fmt: skip
    spent = timed_study(options.draws)
    print(f"uncertainty: {spent:.1f} s for {options.draws:,} draws of one operating point")
    if options.peer:
        said = peer()
        print(said)
        print(ratio(said, seconds, found.problem.considered))


if __name__ == "__main__":
    main()
