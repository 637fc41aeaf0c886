"""How what a replica carries within its targets changes with lengths and cache hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.steady_state import operating_point
from costsim.planning.distributions import Distribution
from costsim.planning.plan_points import Candidate, mean_batch
from costsim.planning.targets import Target
from costsim.planning.workload import Demand

KINDS = ("prompt length", "answer length", "prefix hits")
_KNOTS = 7
_BATCHES = np.geomspace(0.05, 1.0, 33)  # of the batch limit that the engine is started with


@dataclass(frozen=True)
class Response:
    """Capacity over the planned one against the factor of one input, between knots.

    Args:
        factors: of the input, ascending. logs: log of the capacity ratio at each.
    """

    factors: np.ndarray
    logs: np.ndarray

    def at(self, factor: Any) -> Any:
        """Return the logarithm of the capacity ratio at factors; broadcasts."""
        return np.interp(factor, self.factors, self.logs)


def responses(
    candidate: Candidate, demand: Demand, target: Target, inputs: Mapping[str, Distribution]
) -> dict[str, Response]:
    """Return how the capacity for a demand responds to each input of `KINDS` that varies.

    The engine keeps the batch limit that it is started with; longer requests meet the targets up to
    a lower load, and below it where the cache is full.

    Args:
        candidate: the replica. demand: what it serves. target: that it keeps.
        inputs: distributions of the factors, by kind.
    """
    found = {}
    for kind, distribution in inputs.items():
        ends = np.asarray(distribution.ppf(np.array([1e-3, 1.0 - 1e-3])), float)
        low, high = min(float(ends[0]), 0.999), max(float(ends[1]), 1.001)
        factors = np.unique(np.concatenate([np.linspace(low, high, _KNOTS), [1.0]]))
        carried = _carried(candidate, demand, target, kind, factors)
        base = float(carried[factors == 1.0][0])
        logs = np.log(np.maximum(carried, 1e-9 * base) / max(base, 1e-300))
        found[kind] = Response(factors, logs)
    return found


def _carried(
    candidate: Candidate, demand: Demand, target: Target, kind: str, factors: np.ndarray
) -> np.ndarray:
    """Return the requests/s that a replica carries with one input changed by each factor."""
    if kind == "prefix hits":
        hits = np.clip(demand.prefix_hit_share * factors, 0.0, 0.99)
        one = np.ones(1)
        rows = [_rates(candidate, demand.isl * one, demand.osl * one, float(h), target)
                for h in hits]  # fmt: skip
        return np.concatenate(rows)
    isl = demand.isl * (factors if kind == "prompt length" else np.ones(len(factors)))
    osl = demand.osl * (factors if kind == "answer length" else np.ones(len(factors)))
    return _rates(candidate, isl, np.maximum(osl, 1.0), demand.prefix_hit_share, target)


def _rates(
    candidate: Candidate, isl: np.ndarray, osl: np.ndarray, hits: float, target: Target
) -> np.ndarray:
    """Return what a replica carries within targets, for each pair of lengths."""
    d = candidate.deployment
    d = d.with_changes(settings=replace(d.settings, prefix_hit_share=hits))
    batch = np.maximum(candidate.batch_limit * _BATCHES, 1e-3)
    tails = bool(np.isfinite([target.ttft_p99_s, target.tpot_p99_s]).any())
    means = np.maximum(mean_batch(batch), 1e-3) if tails else batch
    count, shape = len(batch), (len(isl), 2 * len(batch))
    point = operating_point(d, isl=isl[:, None], osl=osl[:, None],
                            batch=np.concatenate([batch, means]), detailed=False)  # fmt: skip

    def figure(name: str) -> np.ndarray:
        return np.broadcast_to(np.asarray(getattr(point, name), float), shape)

    limits = np.minimum(batch[-1], figure("max_batch").min(axis=1))
    measures = (("ttft_s", min(target.ttft_s, target.ttft_p99_s)),
                ("tpot_s", min(target.tpot_s, target.tpot_p99_s)), ("e2e_s", target.e2e_s))
    for name, most in measures:
        rising = np.maximum.accumulate(figure(name)[:, :count], axis=1)
        for row in np.flatnonzero(rising[:, -1] > most):
            at = float(np.interp(most, rising[row], batch)) if rising[row, 0] <= most else 0.0
            limits[row] = min(limits[row], at)
    rates = np.maximum.accumulate(figure("requests_per_s")[:, count:], axis=1)
    return np.array([
        float(np.interp(limit, batch, rate)) if limit > 0 else 0.0
        for limit, rate in zip(limits, rates, strict=True)
    ])
