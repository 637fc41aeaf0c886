"""The cheapest design over a model's life, its rivals, and where they change places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.planning.life_cost import MOST_TOKENS, LifeCost, LifePlan, price_design
from costsim.sparsity.design import SparseDesign
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import Law
from costsim.units import format_quantity

ACTIVE_GRID = np.logspace(np.log10(3e8), np.log10(7e11), 25)
EXPERTS = (1, 2, 4, 8, 16, 32, 64)
Say = Callable[[int, int], None]


def designs(
    active: Sequence[float], experts: Sequence[int], granularity: Sequence[int] = (1,),
    shared: Sequence[int] = (0,),
) -> list[SparseDesign]:
    """Return the grid of designs; dense ones have neither granularity nor shared experts."""
    grid = [SparseDesign(float(a)) for a in active if 1 in experts]
    grid += [SparseDesign(float(a), e, g, s) for a, e, g, s
             in product(active, experts, granularity, shared) if e > 1]
    return grid


@dataclass(frozen=True)
class BreakEven:
    """Where a sparse design's life is cheaper than the dense one's.

    Args:
        side: ``above`` or ``below`` so many queries, ``always`` or ``never``.
        queries: served over the life.
    """

    side: str
    queries: float

    def __str__(self) -> str:
        if self.side in ("always", "never"):
            return self.side
        return f"{self.side} {format_quantity(self.queries, 'count')} queries"


@dataclass(frozen=True)
class LifeResult:
    """What a life-cost study found.

    Args:
        best: cheapest design over the life.
        dense: cheapest dense design.
        by_experts: cheapest design for each number of experts.
        everything: all designs priced.
        break_even: where each sparse design's life is cheaper than the dense one's.
        limits: why the best is neither sparser nor denser, in words.
    """

    best: LifeCost
    dense: LifeCost | None
    by_experts: dict[int, LifeCost]
    everything: tuple[LifeCost, ...]
    break_even: dict[int, BreakEven]
    limits: tuple[str, ...]


def optimise(
    law: Law, plan: LifePlan, hardware: Hardware, *, granularity: Sequence[int] = (1,),
    shared: Sequence[int] = (0,), experts: Sequence[int] = EXPERTS,
    active: Sequence[float] = tuple(ACTIVE_GRID), exhaustive: bool = False, refine: bool = True,
    progress: Say | None = None,
) -> LifeResult:
    """Return the cheapest design over the life.

    First active parameters by experts, then granularity and shared experts around the best of
    each number of experts, then, where ``refine``, sizes between those of the grid.

    Args:
        law, plan, hardware: as in `price_design`.
        granularity, shared, experts, active: values to try.
        exhaustive: every combination of the grid.
        refine: look closer around the best.
        progress: called with (done, total).

    Raises:
        InputError: no design reaches the quality and can be served.
    """
    price = _Pricing(law, plan, hardware, progress)
    fine = (granularity, shared)
    first = fine if exhaustive else (granularity[:1], shared[:1])
    price.all(designs(active, experts, *first))
    if not price.best():
        raise InputError(f"no design reaches a loss of {plan.loss} by {law.title} and can be "
                         f"served on {plan.accelerators}x {hardware.name} within {plan.target}")
    sizes = list(active)
    if not exhaustive:
        price.all([d for c in price.best().values()
                   for d in designs(_near(c.design.active, sizes), [c.design.experts], *fine)])
    if refine and len(sizes) > 1:
        step = sizes[1] / sizes[0]
        price.all([replace(c.design, active=c.design.active * step**shift)
                   for c in price.best().values() for shift in (-0.5, -0.25, 0.25, 0.5)])
    best = price.best()
    winner, dense = min(best.values(), key=lambda c: c.total_usd), best.get(1)
    even = {e: break_even(dense, c) for e, c in best.items() if e > 1} if dense else {}
    return LifeResult(winner, dense, best, tuple(price.found.values()), even,
                      _limits(winner, best, price.found.values(), experts))


def _near(size: float, sizes: Sequence[float]) -> list[float]:
    at = int(np.argmin(np.abs(np.log(np.asarray(sizes) / size))))
    return list(sizes[max(at - 1, 0):at + 2])


class _Pricing:
    """Prices designs once each."""

    def __init__(self, law: Law, plan: LifePlan, hardware: Hardware, progress: Say | None) -> None:
        self.law, self.plan, self.hardware, self.progress = law, plan, hardware, progress
        self.found: dict[SparseDesign, LifeCost] = {}

    def all(self, grid: Sequence[SparseDesign]) -> None:
        """Price those that are new and can reach the quality at all."""
        new = [d for d in dict.fromkeys(grid)
               if d not in self.found and _plausible(d, self.law, self.plan)]
        for i, design in enumerate(new):
            if self.progress:
                self.progress(i, len(new))
            self.found[design] = price_design(design, self.law, self.plan, self.hardware)

    def best(self) -> dict[int, LifeCost]:
        """Return the cheapest design of each number of experts that can be trained and served."""
        best: dict[int, LifeCost] = {}
        for cost in self.found.values():
            key = cost.design.experts
            if math.isfinite(cost.total_usd) and (key not in best
                                                  or cost.total_usd < best[key].total_usd):
                best[key] = cost
        return dict(sorted(best.items()))


def _plausible(design: SparseDesign, law: Law, plan: LifePlan) -> bool:
    """Return whether a design can reach the loss at all (cheap test before it is priced)."""
    asked = Design(design.active, design.active * (1 + 0.7 * (design.expert_ratio - 1)),
                   MOST_TOKENS, design.expert_ratio, float(design.fineness))
    return float(law.predict(asked)) <= plan.loss


def _limits(
    winner: LifeCost, best: dict[int, LifeCost], found: Iterable[LifeCost],
    experts: Sequence[int],
) -> tuple[str, ...]:
    """Return why the neighbours in sparsity of the best design cost more."""
    order = sorted(experts)
    at = order.index(winner.design.experts)
    sides = ((order[at + 1:at + 2], "sparser"), (order[max(at - 1, 0):at], "denser"))
    return tuple(_limit(winner, best.get(near[0]), near[0], side, found)
                 for near, side in sides if near)


def _limit(
    winner: LifeCost, other: LifeCost | None, experts: int, side: str, found: Iterable[LifeCost]
) -> str:
    what = f"not {side} ({experts}x experts)" if experts > 1 else f"not {side} (dense)"
    if other is None:
        causes = {c.binds for c in found if c.design.experts == experts}
        return f"{what}: {', '.join(sorted(causes)) or 'quality'} rules out every size"
    trained = other.training_usd - winner.training_usd
    served = other.serving_usd - winner.serving_usd
    more = f"{100 * (other.total_usd / winner.total_usd - 1):.0f} % more over the life"
    if trained > served:
        return f"{what}: {more}, mostly in training (quality of {other.design.name})"
    return f"{what}: {more}, mostly in serving ({other.binds})"


def break_even(dense: LifeCost, sparse: LifeCost) -> BreakEven:
    """Return the queries at which the lives of two designs cost the same, and who wins where."""
    more_training = sparse.training_usd - dense.training_usd
    saved = dense.usd_per_query - sparse.usd_per_query
    if more_training <= 0 <= saved:
        return BreakEven("always", 0.0)
    if more_training >= 0 >= saved:
        return BreakEven("never", math.inf)
    return BreakEven("above" if saved > 0 else "below", more_training / saved)


@dataclass(frozen=True)
class QualityPoint:
    """A design trained with one budget: the loss it reaches, and what it costs to serve."""

    cost: LifeCost
    loss: float
    on_front: bool


def quality_front(costs: Sequence[LifeCost], law: Law, budget_usd: float) -> list[QualityPoint]:
    """Return loss against $ per query at an equal training budget, best loss first.

    Training costs grow in proportion to the tokens. On the front are designs that none beats in
    both.

    Args:
        costs: designs that were priced.
        law: of quality.
        budget_usd: of each training run.
    """
    found = []
    for c in costs:
        if not (math.isfinite(c.training_usd) and math.isfinite(c.usd_per_query)):
            continue
        tokens = min(c.tokens * budget_usd / c.training_usd, MOST_TOKENS)
        asked = Design(c.active, c.total, tokens, c.design.expert_ratio,
                       float(c.design.fineness))
        found.append((float(law.predict(asked)), c))
    found.sort(key=lambda pair: (pair[0], pair[1].usd_per_query))
    points, cheapest = [], math.inf
    for loss, c in found:
        points.append(QualityPoint(c, loss, c.usd_per_query < cheapest))
        cheapest = min(cheapest, c.usd_per_query)
    return points
