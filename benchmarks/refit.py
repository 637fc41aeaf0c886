"""Does a refit to a user's own runs hold? Asked of the measured serving points of `silicon`.

    python benchmarks/refit.py

Each deployment of `silicon_sample.csv` (extra ``silicon``) with four or more concurrencies among
the rows that no preset was fitted to is taken for a user's benchmark: every second run is fitted,
the others are reported before and after.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from costsim.errors import InputError
from costsim.validation.benchmarks.run import Run, Statistic
from costsim.validation.refit import Refit, refit
from costsim.validation.silicon import default_settings, deployment_of
from costsim.validation.silicon_points import ServingPoint, read_points, sample_path

FEWEST = 4


def run_of(point: ServingPoint) -> Run:
    """Return a point as a run: a closed loop of its concurrency."""
    e2e = point.ttft_s + max(point.mean_osl - 1, 1) * point.tpot_s
    rate = point.concurrency / e2e
    return Run(
        source=point.id, tool="silicon", concurrency=point.concurrency, request_rate=np.inf,
        requests=10 * point.concurrency, failed=0, duration_s=10 * e2e,
        isl=point.mean_isl, osl=point.mean_osl, ttft_s=Statistic(point.ttft_s),
        tpot_s=Statistic(point.tpot_s), e2e_s=Statistic(e2e), requests_per_s=rate,
        output_tokens_per_s=rate * point.mean_osl)


def refits() -> list[tuple[ServingPoint, Refit]]:
    """Return the refit of each deployment, by a representative point."""
    rows, _ = read_points(sample_path())
    found = []
    servers: dict[tuple[object, ...], list[ServingPoint]] = defaultdict(list)
    for p in rows:
        if not p.fit and p.layout is not None:
            servers[(p.engine, p.model, p.hardware, p.weights, p.layout, p.draft_tokens,
                     p.public)].append(p)
    for members in servers.values():
        first, settings = members[0], default_settings()
        if len(members) < FEWEST or first.layout is None:
            continue
        members = sorted(members, key=lambda p: (p.concurrency, p.isl))
        try:
            deployment = deployment_of(first, first.layout, settings)
            found.append((first, refit([run_of(p) for p in members], deployment, "mine")))
        except InputError:
            continue
    return found


def main() -> None:
    """Print the median error of held-out runs before and after, by engine and together."""
    found = refits()
    print(f"{'engine':10} {'servers':>8} {'runs':>6}", *(f"{m} {w:>6}" for m in ("TPOT", "TTFT")
                                                          for w in ("before", "after")))
    for engine in ("vllm", "sglang", "trtllm", ""):
        own = [r for p, r in found if p.engine == engine or not engine]
        if not own:
            continue
        cells = []
        for metric in ("tpot_s", "ttft_s"):
            for part in ("before_held", "after_held"):
                errors = [abs(np.log(m.predicted / m.measured)) for r in own
                          for each in getattr(r, part).runs for m in each.rows
                          if m.metric == metric]
                cells.append(f"{100 * np.expm1(np.median(errors)):9.1f} %")
        runs = sum(len(r.after_held.runs) for r in own if r.after_held)
        print(f"{engine or 'all':10} {len(own):8} {runs:6}", *cells)


if __name__ == "__main__":
    main()
