"""Cost against load and its crossovers agree with their closed form and with brute force."""

from __future__ import annotations

import numpy as np
import pytest

from costsim.engine.layout import Layout
from costsim.planning.compare import Comparison, compare
from costsim.planning.estimate import make_deployment
from costsim.planning.load import LoadCurve, crossovers


def _curve(name: str, capacity: float, usd_per_s: float, replicas: int = 1000) -> LoadCurve:
    load = np.logspace(-2, 4, 2000)
    cost = np.maximum(np.ceil(load / capacity), 1) * usd_per_s / load
    return LoadCurve(name, load, np.ceil(load / capacity), cost, capacity * replicas, 1,
                     usd_per_s, usd_per_s / capacity)


def test_crossover_of_two_replica_sizes() -> None:
    """F = 1, X = 1 against F = 4, X = 8: the slope 4/load meets the floor 1 at load 4."""
    (found,) = crossovers(_curve("small", 1.0, 1.0), _curve("large", 8.0, 4.0))
    assert found.cheaper_below == "small" and found.cheaper_above == "large"
    assert found.requests_per_s == pytest.approx(4.0)


def test_crossover_does_not_hang_on_the_order() -> None:
    a, b = _curve("a", 1.0, 1.0), _curve("b", 8.0, 4.0)
    assert crossovers(a, b) == crossovers(b, a)


def test_one_that_is_dearer_everywhere_never_overtakes() -> None:
    assert crossovers(_curve("small", 1.0, 1.0), _curve("large", 2.0, 4.0)) == []


def test_no_crossover_beyond_the_fleet() -> None:
    assert crossovers(_curve("small", 1.0, 1.0, replicas=3), _curve("large", 8.0, 4.0)) == []


@pytest.fixture(scope="module")
def found() -> Comparison:
    pairs = [(f"tp{n}", make_deployment("llama-3.1-70b", "h100_sxm", Layout(tp=n), precision="fp8"))
             for n in (2, 8)]
    return compare(pairs, isl=1024, osl=256, fixed_layouts=True)


def test_curves_pay_whole_replicas(found: Comparison) -> None:
    for curve, estimate in zip(found.curves, found.estimates, strict=True):
        paid = curve.usd_per_query * curve.requests_per_s / curve.usd_per_replica_s
        served = np.isfinite(paid)
        assert paid[served] == pytest.approx(np.round(paid[served]), abs=1e-6)
        assert np.nanmin(curve.usd_per_query) >= float(estimate.usd_per_query) * (1 - 1e-6)


def test_a_crossover_separates_the_envelopes(found: Comparison) -> None:
    by_name = {c.name: c for c in found.curves}

    def envelope(curve: LoadCurve, load: float) -> float:
        return max(curve.usd_per_replica_s / load, curve.floor_usd)

    for cross in found.crossovers:
        low, high = by_name[cross.cheaper_below], by_name[cross.cheaper_above]
        at = cross.requests_per_s
        assert envelope(low, 0.9 * at) < envelope(high, 0.9 * at)
        assert envelope(high, 1.1 * at) < envelope(low, 1.1 * at)
