"""Life cost: sizes as asked, data that reaches the quality, and the optimum by brute force."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.planning import life_cost
from costsim.planning.life_cost import (
    LifePlan,
    break_even,
    optimise,
    pareto,
    price_design,
    tokens_for_loss,
)
from costsim.planning.targets import Target
from costsim.sparsity.design import SparseDesign, sizes
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import load_law

LAW = load_law("ludziejewski")
PLAN = LifePlan(loss=2.2, queries=1e9, isl=500, osl=200, target=Target(tpot_s=0.05),
                accelerators=8)


@pytest.mark.parametrize("active", [1e9, 7e9, 7e10])
@pytest.mark.parametrize("experts", [1, 8])
def test_designs_have_the_size_asked_for(active: float, experts: int) -> None:
    built_active, built_total = sizes(SparseDesign(active, experts))
    assert built_active == pytest.approx(active, rel=0.06)
    assert built_total >= built_active
    if experts > 1:
        assert 3.5 < built_total / built_active < experts


def test_tokens_reach_the_loss() -> None:
    design = Design(7e9, 7e9, 1.0)
    tokens = tokens_for_loss(LAW, design, 2.2)
    assert float(LAW.predict(replace(design, tokens=tokens))) == pytest.approx(2.2, abs=1e-6)
    assert tokens_for_loss(LAW, Design(1e8, 1e8, 1.0), 1.4) == math.inf


def test_better_quality_costs_more_training() -> None:
    hardware = load_hardware("h100_sxm")
    design = SparseDesign(7e9)
    costs = [price_design(design, LAW, replace(PLAN, loss=x), hardware).training_usd
             for x in (2.4, 2.3, 2.2)]
    assert costs[0] < costs[1] < costs[2]


def test_unreachable_quality_is_said() -> None:
    cost = price_design(SparseDesign(1e8), LAW, replace(PLAN, loss=1.4), load_hardware("h100_sxm"))
    assert cost.binds == "quality" and math.isinf(cost.total_usd)
    with pytest.raises(InputError, match="no design reaches"):
        optimise(LAW, replace(PLAN, loss=1.3637), load_hardware("h100_sxm"), refine=False)


def test_memory_binds_where_the_weights_do_not_fit() -> None:
    cost = price_design(SparseDesign(7e9, 64), LAW, replace(PLAN, accelerators=1),
                        load_hardware("tpu_v5e"))
    assert cost.binds == "memory"


def test_optimum_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = np.logspace(9, 10.3, 5)
    monkeypatch.setattr(life_cost, "ACTIVE_GRID", coarse)
    monkeypatch.setattr(life_cost, "designs",
                        lambda g: [SparseDesign(float(a), e) for a in coarse for e in (1, 8, 32)])
    hardware = load_hardware("h100_sxm")
    found = optimise(LAW, PLAN, hardware, refine=False)
    brute = [price_design(SparseDesign(float(a), e), LAW, PLAN, hardware)
             for a in coarse for e in (1, 8, 32)]
    best = min(brute, key=lambda c: c.total_usd)
    assert found.best.design == best.design
    assert found.best.total_usd == best.total_usd
    front = pareto(brute)
    assert front and all(a.training_usd >= b.training_usd
                         for a, b in itertools.pairwise(front))


def test_break_even_is_where_the_lives_cost_the_same() -> None:
    hardware = load_hardware("h100_sxm")
    dense = price_design(SparseDesign(7e9), LAW, PLAN, hardware)
    sparse = price_design(SparseDesign(2e9, 32), LAW, PLAN, hardware)
    even = break_even(dense, sparse)
    if even.side in ("above", "below"):
        left = dense.training_usd + dense.usd_per_query * even.queries
        right = sparse.training_usd + sparse.usd_per_query * even.queries
        assert left == pytest.approx(right, rel=1e-9)
    cheaper = replace(dense, training_usd=0.5 * dense.training_usd)
    assert break_even(dense, cheaper).side == "always"
    assert break_even(cheaper, dense).side == "never"
