"""Training and serving cost over a model's life, for designs of equal quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costsim.economics.prices import rent
from costsim.economics.query import SECONDS_PER_HOUR
from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.planning.choose import choose
from costsim.planning.estimate import Estimate, estimate_deployment
from costsim.planning.targets import Target
from costsim.sparsity.design import SparseDesign, model_of, sizes
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import Law
from costsim.units import format_quantity

ACTIVE_GRID = np.logspace(np.log10(3e8), np.log10(7e11), 25)
EXPERTS = (1, 2, 4, 8, 16, 32, 64)
MOST_TOKENS = 2e14


@dataclass(frozen=True)
class LifePlan:
    """What is wanted over the model's life.

    Args:
        loss: quality to reach, in the law's unit.
        queries: served over the life.
        isl, osl: tokens of a query.
        target: latencies.
        accelerators: chips for serving; a design must fit on them.
        mfu: assumed in training where none is predicted.
        training_price, serving_price: terms of the rent.
        precision: data type of served weights.
    """

    loss: float
    queries: float
    isl: float
    osl: float
    target: Target
    accelerators: int = 64
    mfu: float = 0.40
    training_price: str = "reserved_3y"
    serving_price: str = "on_demand"
    precision: str = "fp8"

    def __post_init__(self) -> None:
        """Refuse numbers that make no plan."""
        for name in ("loss", "queries", "isl", "osl", "accelerators", "mfu"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} = {value}: must be a positive number")


@dataclass(frozen=True)
class LifeCost:
    """One design with its cost over the life.

    Args:
        design: sizes and experts.
        active, total: parameters as built, embeddings aside.
        tokens: training tokens that reach the quality.
        training_usd, serving_usd: over the life.
        usd_per_query: of serving at full load; NaN where it cannot be served.
        estimate: the deployment that serves it.
        binds: what limits the design: ``memory``, ``quality``, ``latency``, or the bottleneck.
        log_error_loss: standard deviation of log(loss) that the law has at this design.
        warning: what to know, such as an extrapolated law.
    """

    design: SparseDesign
    active: float
    total: float
    tokens: float
    training_usd: float
    serving_usd: float
    usd_per_query: float
    estimate: Estimate | None
    binds: str
    log_error_loss: float
    warning: str = ""

    @property
    def total_usd(self) -> float:
        """Training and serving; infinite where it cannot be served."""
        value = self.training_usd + self.serving_usd
        return value if math.isfinite(value) else math.inf

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        d = self.design
        return {
            "name": d.name, "active": self.active, "total": self.total, "experts": d.experts,
            "routed_experts": d.experts * d.granularity if d.experts > 1 else 0,
            "top_k": d.top_k if d.experts > 1 else 0, "granularity": d.granularity,
            "tokens": self.tokens, "training_usd": self.training_usd,
            "serving_usd": self.serving_usd, "usd_per_query": self.usd_per_query,
            "total_usd": self.total_usd, "binds": self.binds,
            "log_error_loss": self.log_error_loss, "warning": self.warning,
            "layout": str(self.estimate.deployment.layout) if self.estimate else None,
            "accelerators": int(self.estimate.deployment.accelerators) if self.estimate else None,
        }


def tokens_for_loss(law: Law, design: Design, loss: float) -> float:
    """Return the training tokens at which a design reaches a loss; infinity where it cannot.

    The loss falls with the tokens in every law, so that bisection in logs finds it.
    """
    low, high = 1e7, MOST_TOKENS

    def at(tokens: float) -> float:
        return float(law.predict(replace(design, tokens=tokens)))

    if at(high) > loss:
        return math.inf
    if at(low) <= loss:
        return low
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle) <= loss else (middle, high)
    return high


def training_usd(active: float, tokens: float, hardware: Hardware, plan: LifePlan) -> float:
    """Return the rent of a training run by 6·N·D FLOP at the plan's MFU [$]."""
    flop = 6.0 * active * tokens
    rate = float(np.max(hardware.peak("bf16"))) * plan.mfu
    price = float(rent(hardware, plan.training_price).central)
    return flop / rate / SECONDS_PER_HOUR * price


def price_design(design: SparseDesign, law: Law, plan: LifePlan, hardware: Hardware) -> LifeCost:
    """Return the cost of one design over the life.

    Args:
        design: what to train and serve.
        law: of quality.
        plan: what is wanted.
        hardware: that trains and serves.
    """
    active, total = sizes(design)
    asked = Design(active, total, 1e12, float(design.experts), float(design.granularity))
    tokens = tokens_for_loss(law, asked, plan.loss)
    if not math.isfinite(tokens):
        return LifeCost(design, active, total, tokens, math.inf, math.inf, math.nan, None,
                        "quality", math.nan, "cannot reach the quality with any data")
    reached = replace(asked, tokens=tokens)
    training = training_usd(active, tokens, hardware, plan)
    error, warning = float(law.total_log_error(reached)), law.warning(reached)
    estimate, binds = _served(design, plan, hardware)
    usd = float(estimate.usd_per_query) if estimate else math.nan
    serving = usd * plan.queries if estimate else math.inf
    return LifeCost(design, active, total, tokens, training, serving, usd, estimate, binds, error,
                    warning)


def _served(
    design: SparseDesign, plan: LifePlan, hardware: Hardware
) -> tuple[Estimate | None, str]:
    model = model_of(design)
    deployment = deploy(model, hardware, Layout(), Precision.uniform(plan.precision),
                        load_settings("vllm"))
    try:
        found = choose(deployment, isl=plan.isl, osl=plan.osl, target=plan.target,
                       max_accelerators=plan.accelerators)
    except InputError:
        return None, "memory"
    if not found.met:
        return None, "latency"
    estimate = estimate_deployment(found.deployment, batch=found.batch, isl=plan.isl, osl=plan.osl,
                                   price=plan.serving_price)
    return estimate, binding(estimate)


_CAUSES = {"experts": "experts touched", "expert dispatch": "all-to-all",
           "expert combine": "all-to-all", "expert exchange": "all-to-all",
           "attention (decode)": "KV cache", "all-reduce": "all-reduce", "host": "host"}


def binding(estimate: Estimate) -> str:
    """Return the largest part of a decode step as the constraint that binds."""
    parts = estimate.point.decode.by_operator
    largest = max(parts, key=lambda name: float(parts[name]))
    return _CAUSES.get(largest, "weights read")


def designs(granularity: Sequence[int] = (1,), experts: Sequence[int] = EXPERTS,
            active: Sequence[float] = tuple(ACTIVE_GRID)) -> list[SparseDesign]:
    """Return the grid of designs; dense ones have no granularity."""
    grid = [SparseDesign(float(a)) for a in active]
    for a in active:
        for e in experts:
            grid += [SparseDesign(float(a), e, g) for g in granularity if e > 1]
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
    """

    best: LifeCost
    dense: LifeCost | None
    by_experts: dict[int, LifeCost]
    everything: tuple[LifeCost, ...]
    break_even: dict[int, BreakEven]


def optimise(
    law: Law, plan: LifePlan, hardware: Hardware, granularity: Sequence[int] = (1,),
    refine: bool = True, progress: Callable[[int, int], None] | None = None,
) -> LifeResult:
    """Return the cheapest design over the life.

    First a coarse grid over active parameters, experts and granularity; then, where ``refine``,
    a finer one around the best size of each number of experts.

    Args:
        law, plan, hardware: as in `price_design`.
        granularity: values to try.
        refine: look closer around the best.
        progress: called with (done, total).

    Raises:
        InputError: no design reaches the quality and can be served.
    """
    grid = [d for d in designs(granularity) if _plausible(d, law, plan)]
    priced = _price_all(grid, law, plan, hardware, progress)
    best = _best_by_experts(priced)
    if not best:
        raise InputError(f"no design reaches a loss of {plan.loss} by {law.title} and can be "
                         f"served on {plan.accelerators}x {hardware.name} within {plan.target}")
    if refine:
        step = ACTIVE_GRID[1] / ACTIVE_GRID[0]
        finer = [replace(c.design, active=c.design.active * step**shift)
                 for c in best.values() for shift in (-0.5, -0.25, 0.25, 0.5)]
        priced += _price_all(finer, law, plan, hardware, None)
        best = _best_by_experts(priced)
    winner = min(best.values(), key=lambda c: c.total_usd)
    dense = best.get(1)
    even = {e: break_even(dense, c) for e, c in best.items() if e > 1} if dense else {}
    return LifeResult(winner, dense, best, tuple(priced), even)


def _plausible(design: SparseDesign, law: Law, plan: LifePlan) -> bool:
    """Return whether a design can reach the loss at all (cheap test before it is priced)."""
    asked = Design(design.active, design.active * (1 + 0.7 * (design.experts - 1)), MOST_TOKENS,
                   float(design.experts), float(design.granularity))
    return float(law.predict(asked)) <= plan.loss


def _price_all(
    grid: Sequence[SparseDesign], law: Law, plan: LifePlan, hardware: Hardware,
    progress: Callable[[int, int], None] | None,
) -> list[LifeCost]:
    found = []
    for i, design in enumerate(grid):
        found.append(price_design(design, law, plan, hardware))
        if progress:
            progress(i + 1, len(grid))
    return found


def _best_by_experts(priced: Sequence[LifeCost]) -> dict[int, LifeCost]:
    best: dict[int, LifeCost] = {}
    for cost in priced:
        key = cost.design.experts
        if math.isfinite(cost.total_usd) and (key not in best
                                              or cost.total_usd < best[key].total_usd):
            best[key] = cost
    return dict(sorted(best.items()))


def break_even(dense: LifeCost, sparse: LifeCost) -> BreakEven:
    """Return the queries at which the lives of two designs cost the same, and who wins where."""
    more_training = sparse.training_usd - dense.training_usd
    saved = dense.usd_per_query - sparse.usd_per_query
    if more_training <= 0 <= saved:
        return BreakEven("always", 0.0)
    if more_training >= 0 >= saved:
        return BreakEven("never", math.inf)
    return BreakEven("above" if saved > 0 else "below", more_training / saved)


def pareto(costs: Sequence[LifeCost]) -> list[LifeCost]:
    """Return the designs that no other beats in both training cost and $ per query."""
    front: list[LifeCost] = []
    for cost in sorted((c for c in costs if math.isfinite(c.total_usd)),
                       key=lambda c: (c.usd_per_query, c.training_usd)):
        if not front or cost.training_usd < front[-1].training_usd:
            front.append(cost)
    return front
