"""Where sparsity pays, said from curves whose crossing is known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costsim.models.loader import load_model
from costsim.planning.findings import _pays_from, _verdicts
from costsim.planning.load import LoadCurve

DENSE, SPARSE = load_model("llama-3.1-70b"), load_model("mixtral-8x7b")


def _curve(name: str, replica_usd_s: float, floor: float, capacity: float) -> LoadCurve:
    return LoadCurve(name, np.ones(1), np.ones(1), np.ones(1), capacity, 8, replica_usd_s, floor)


def _result(*curves: tuple[Any, LoadCurve]) -> Any:
    """Return a result with one workload on one accelerator."""
    models = [SimpleNamespace(model=m, reference=False) for m, _ in curves]
    cells = [SimpleNamespace(name=c.name, reason="", model=entry)
             for entry, (_, c) in zip(models, curves, strict=True)]
    scenario = SimpleNamespace(models=models, hardware=[SimpleNamespace(key="h")],
                               workloads=[SimpleNamespace(key="w", title="Chat")])
    return SimpleNamespace(scenario=scenario, found=lambda hardware, workload: cells,
                           curves={("h", "w"): tuple(c for _, c in curves)})


def test_sparsity_pays_where_its_slope_meets_the_dense_floor() -> None:
    # F/load of the sparse replica (4 $/s) equals the dense floor (0.5 $) at 8 requests/s.
    result = _result((DENSE, _curve("dense", 1.0, 0.5, 100.0)),
                     (SPARSE, _curve("sparse", 4.0, 0.1, 100.0)))
    assert _pays_from(result, "h", "w") == pytest.approx(8.0, rel=0.01)
    assert _verdicts(result) == ["Chat: does sparsity pay? yes, above 8 /s on h."]


def test_it_never_pays_beyond_the_fleet_or_with_a_higher_floor() -> None:
    dense = _curve("dense", 1.0, 0.5, 100.0)
    assert _pays_from(_result((DENSE, dense), (SPARSE, _curve("sparse", 4.0, 0.6, 100.0))),
                      "h", "w") is None
    assert _pays_from(_result((DENSE, dense), (SPARSE, _curve("sparse", 4.0, 0.1, 7.0))),
                      "h", "w") is None


def test_it_pays_at_every_load_with_the_smaller_replica_and_nothing_fits_with_none() -> None:
    small = _curve("sparse", 0.5, 0.1, 100.0)
    result = _result((DENSE, _curve("dense", 1.0, 0.5, 100.0)), (SPARSE, small))
    assert _pays_from(result, "h", "w") == 0.0
    assert math.isnan(_pays_from(_result(), "h", "w") or 0.0)
    assert _verdicts(_result((SPARSE, small))) == []
