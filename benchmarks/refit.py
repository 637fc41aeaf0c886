"""Does a refit to a user's own runs hold? Asked of measured serving points.

    python benchmarks/refit.py            # of the measured points of `silicon`
    python benchmarks/refit.py public     # of runs from public repositories

Each deployment of `silicon_sample.csv` (extra ``silicon``) with four or more concurrencies among
the rows that no preset was fitted to, or each source of `public_runs.csv` with four or more runs,
is taken for a user's benchmark: every second run is fitted, the others are reported before and
after.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from costsim.errors import InputError
from costsim.validation.benchmarks.run import Run, Statistic
from costsim.validation.public_runs import read_table, sources
from costsim.validation.refit import Refit, refit
from costsim.validation.silicon import default_settings, deployment_of
from costsim.validation.silicon_points import ServingPoint, read_points, sample_path

FEWEST = 4
METRICS = ("tpot_s", "ttft_s", "output_tokens_per_s")
# Coefficient of variation of lengths drawn evenly from 80 to 100 %, as the public sweeps do.
_PUBLIC_CV = 0.2 / np.sqrt(12.0) / 0.9


def run_of(point: ServingPoint) -> Run:
    """Return a point as a run: a closed loop of its concurrency."""
    e2e = point.ttft_s + max(point.mean_osl - 1, 1) * point.tpot_s
    rate, spread = point.concurrency / e2e, float(_PUBLIC_CV) if point.public else 0.0
    return Run(
        source=point.id, tool="silicon", concurrency=point.concurrency, request_rate=np.inf,
        requests=10 * point.concurrency, failed=0, duration_s=10 * e2e,
        isl=point.mean_isl, isl_cv=spread, osl=point.mean_osl, osl_cv=spread,
        ttft_s=Statistic(point.ttft_s), tpot_s=Statistic(point.tpot_s), e2e_s=Statistic(e2e),
        requests_per_s=rate, output_tokens_per_s=rate * point.mean_osl)


def of_silicon() -> Iterator[tuple[str, Refit]]:
    """Yield the refit of each deployment, by its engine."""
    rows, _ = read_points(sample_path())
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
            yield first.engine, refit([run_of(p) for p in members], deployment, "mine")
        except InputError as error:
            print(f"left out, {first.id}: {error}", file=sys.stderr)


def of_public() -> Iterator[tuple[str, Refit]]:
    """Yield the refit of each source of public runs, by its key."""
    for key, runs in read_table().items():
        if len(runs) >= FEWEST:
            source = sources()[key]
            yield key, refit(runs, source.deployment(), "mine", source.replicas)


def _error(refits: Sequence[Refit], part: str, metric: str) -> float:
    errors = [abs(np.log(m.predicted / m.measured)) for r in refits
              for each in getattr(r, part).runs for m in each.rows if m.metric == metric]
    return 100 * float(np.expm1(np.median(errors))) if errors else float("nan")


def main() -> None:
    """Print the median error of held-out runs before and after, by class and together."""
    public = sys.argv[1:] == ["public"]
    found = list(of_public() if public else of_silicon())
    print(f"{'':28} servers   runs",
          *(f"{m[:6]} {w:>6}" for m in METRICS for w in ("before", "after")))
    for name in (*dict.fromkeys(n for n, _ in found), ""):
        own = [r for n, r in found if n == name or not name]
        runs = sum(len(r.after_held.runs) for r in own if r.after_held)
        print(f"{name or 'all':28} {len(own):7} {runs:6}",
              *(f"{_error(own, part, m):11.1f} %" for m in METRICS
                for part in ("before_held", "after_held")))


if __name__ == "__main__":
    main()
