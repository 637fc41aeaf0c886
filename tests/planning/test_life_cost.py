"""Life cost: sizes as asked, data that reaches the quality, and the optimum by brute force."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.planning.life_cost import LifePlan, price_design, tokens_for_loss, training_cost
from costsim.planning.life_search import break_even, designs, optimise, quality_front
from costsim.planning.life_variants import variants
from costsim.planning.targets import Target
from costsim.sparsity.design import SparseDesign, model_of, sizes
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


SMALL = replace(PLAN, mfu=0.4)
SIZES = tuple(np.logspace(9, 10.3, 4))
FINE = {"granularity": (1, 4), "shared": (0, 1), "experts": (1, 8, 32), "active": SIZES}


def test_optimum_is_that_of_brute_force() -> None:
    """Over active parameters, experts, top-k with granularity, and shared experts."""
    hardware = load_hardware("h100_sxm")
    found = optimise(LAW, SMALL, hardware, refine=False, exhaustive=True, **FINE)
    grid = designs(SIZES, (1, 8, 32), (1, 4), (0, 1))
    brute = [price_design(d, LAW, SMALL, hardware) for d in grid]
    best = min(brute, key=lambda c: c.total_usd)
    assert len(brute) == 4 + 4 * 2 * 4
    assert found.best.design == best.design
    assert found.best.total_usd == best.total_usd
    staged = optimise(LAW, SMALL, hardware, refine=False, **FINE)
    assert staged.best.total_usd == pytest.approx(best.total_usd, rel=0.02)
    assert len(staged.everything) < len(brute)
    assert found.limits and all("not " in line for line in found.limits)
    front = quality_front(brute, LAW, best.training_usd)
    best_points = [p for p in front if p.on_front]
    assert all(a.loss <= b.loss and a.cost.usd_per_query > b.cost.usd_per_query
               for a, b in itertools.pairwise(best_points))
    for p in front:
        beaten = any(q.loss < p.loss and q.cost.usd_per_query < p.cost.usd_per_query
                     for q in front)
        assert not (p.on_front and beaten)


def test_shared_experts_do_not_count_as_routed_ones() -> None:
    assert SparseDesign(1e9, 16, 1, 0).expert_ratio == 16
    assert SparseDesign(1e9, 16, 1, 1).expert_ratio == 8.5
    built = model_of(SparseDesign(7e9, 16, 1, 1)).layers[0].ffn
    assert built is not None
    total = built.experts * built.width + built.shared_width
    assert total / (built.top_k * built.width + built.shared_width) == pytest.approx(8.5)


def test_training_is_predicted_unless_an_mfu_is_given() -> None:
    hardware, design = load_hardware("h100_sxm"), SparseDesign(7e9, 8)
    predicted = training_cost(design, 7e9, 1e12, hardware, PLAN)
    assumed = training_cost(design, 7e9, 1e12, hardware, replace(PLAN, mfu=predicted.mfu))
    assert 0.1 < predicted.mfu < 0.6
    # The assumed one leaves out attention and failures.
    assert assumed.usd < predicted.usd < 1.6 * assumed.usd
    sparser = training_cost(SparseDesign(7e9, 64), 7e9, 1e12, hardware, PLAN)
    assert sparser.mfu < predicted.mfu and sparser.usd > predicted.usd
    tight = replace(PLAN, training_accelerators=2)
    assert math.isinf(training_cost(SparseDesign(7e10, 64), 7e10, 1e12, hardware, tight).usd)


def test_compressed_variants_train_longer_for_the_same_quality() -> None:
    found = {v.compression.key: v for v in variants(SparseDesign(7e9), LAW, SMALL,
                                                    load_hardware("h100_sxm"))}
    plain, int4, half = found["bf16"], found["int4"], found["2to4"]
    assert int4.cost.tokens > plain.cost.tokens
    assert int4.cheapest_usd <= int4.cost.total_usd <= int4.dearest_usd
    assert half.cost.binds == "quality" and math.isinf(half.cost.total_usd)
    blocks = found["blocks50"]
    assert not blocks.compression.known and math.isinf(blocks.dearest_usd)
    assert blocks.cheapest_usd == blocks.cost.total_usd


def test_interval_of_tokens_widens_beyond_the_law() -> None:
    near = price_design(SparseDesign(1e9), LAW, replace(SMALL, loss=2.6), load_hardware("h100_sxm"))
    far = price_design(SparseDesign(7e9), LAW, SMALL, load_hardware("h100_sxm"))
    for cost in (near, far):
        assert cost.tokens_interval[0] < cost.tokens < cost.tokens_interval[1]
    ratio = [c.tokens_interval[1] / c.tokens_interval[0] for c in (near, far)]
    assert ratio[1] > ratio[0]


@pytest.mark.parametrize("changes", [{"mfu": -0.1}, {"mfu": 2.0}, {"queries": 0.0}])
def test_bad_plans(changes: dict[str, float]) -> None:
    with pytest.raises(InputError):
        replace(PLAN, **changes)


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
