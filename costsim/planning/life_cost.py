"""Training and serving cost of one design over a model's life, at a quality to reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from costsim.economics.prices import rent
from costsim.economics.query import SECONDS_PER_HOUR
from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.errors import DoesNotFitError, InputError
from costsim.hardware.accelerator import Hardware
from costsim.planning.choose import choose
from costsim.planning.estimate import Estimate, estimate_deployment
from costsim.planning.targets import Target
from costsim.sparsity.design import SparseDesign, model_of, sizes
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import Law
from costsim.training.plan import TrainingPlan
from costsim.training.search import search_layout

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
        mfu: assumed in training; 0 predicts it from the fastest layout.
        training_accelerators, batch_tokens, sequence: of the training run.
        training_price, serving_price: terms of the rent.
        precision: data type of served weights.
    """

    loss: float
    queries: float
    isl: float
    osl: float
    target: Target
    accelerators: int = 64
    mfu: float = 0.0
    training_accelerators: int = 1024
    batch_tokens: float = 2**22
    sequence: int = 4096
    training_price: str = "reserved_3y"
    serving_price: str = "on_demand"
    precision: str = "fp8"

    def __post_init__(self) -> None:
        """Refuse numbers that make no plan."""
        for name in ("loss", "queries", "isl", "osl", "accelerators", "training_accelerators",
                     "batch_tokens", "sequence"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} = {value}: must be a positive number")
        if not 0.0 <= self.mfu <= 1.0:
            raise InputError(f"mfu = {self.mfu}: must be 0 (predicted) to 1")


@dataclass(frozen=True)
class LifeCost:
    """One design with its cost over the life.

    Args:
        design: sizes and experts.
        active, total: parameters as built, embeddings aside.
        tokens: training tokens that reach the quality.
        training_usd, serving_usd: over the life.
        mfu: of the training run, predicted or assumed.
        usd_per_query: of serving at full load; NaN where it cannot be served.
        estimate: the deployment that serves it.
        binds: what limits the design: ``memory``, ``quality``, ``latency``, or the bottleneck.
        log_error_loss: standard deviation of log(loss) that the law has at this design.
        tokens_interval: tokens where the law is off by that either way (90 %).
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
    mfu: float = math.nan
    tokens_interval: tuple[float, float] = (math.nan, math.nan)

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
            "shared_experts": d.shared, "training_mfu": self.mfu,
            "tokens": self.tokens, "tokens_interval": list(self.tokens_interval),
            "training_usd": self.training_usd,
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


@dataclass(frozen=True)
class Training:
    """Rent of a training run and its MFU; infinite where it does not fit."""

    usd: float
    mfu: float


def training_cost(
    design: SparseDesign, active: float, tokens: float, hardware: Hardware, plan: LifePlan
) -> Training:
    """Return what training costs, failures included.

    By the fastest layout on the plan's accelerators (docs/training.md), or by 6·N·D FLOP where
    the plan assumes an MFU.
    """
    price = float(rent(hardware, plan.training_price).central)
    if plan.mfu:
        rate = float(np.max(hardware.peak("bf16"))) * plan.mfu
        return Training(6.0 * active * tokens / rate / SECONDS_PER_HOUR * price, plan.mfu)
    wanted = TrainingPlan(tokens, plan.batch_tokens, plan.sequence)
    try:
        found = search_layout(model_of(design, plan.sequence), hardware,
                              plan.training_accelerators, wanted)
    except DoesNotFitError:
        return Training(math.inf, math.nan)
    return Training(float(found.gpu_hours) * price, float(found.mfu))


def price_design(design: SparseDesign, law: Law, plan: LifePlan, hardware: Hardware) -> LifeCost:
    """Return the cost of one design over the life.

    Args:
        design: what to train and serve.
        law: of quality.
        plan: what is wanted.
        hardware: that trains and serves.
    """
    active, total = sizes(design)
    asked = Design(active, total, 1e12, design.expert_ratio, float(design.fineness))
    tokens = tokens_for_loss(law, asked, plan.loss)
    if not math.isfinite(tokens):
        return LifeCost(design, active, total, tokens, math.inf, math.inf, math.nan, None,
                        "quality", math.nan, "cannot reach the quality with any data")
    reached = replace(asked, tokens=tokens)
    error, warning = float(law.total_log_error(reached)), _warning(law, design, reached)
    estimate, binds = _served(design, plan, hardware)
    usd = float(estimate.usd_per_query) if estimate else math.nan
    serving = usd * plan.queries if estimate else math.inf
    training = training_cost(design, active, tokens, hardware, plan)
    if not math.isfinite(training.usd):
        binds = "memory in training"
    return LifeCost(design, active, total, tokens, training.usd, serving, usd, estimate, binds,
                    error, warning, training.mfu, _tokens_interval(law, reached, plan.loss, error))


def _tokens_interval(law: Law, reached: Design, loss: float, error: float) -> tuple[float, float]:
    """Return the tokens that are needed where the law is off by ±1.645 standard deviations."""
    ends = (math.exp(1.645 * error), math.exp(-1.645 * error))
    low, high = (tokens_for_loss(law, reached, loss * end) for end in ends)
    return low, high


def _warning(law: Law, design: SparseDesign, reached: Design) -> str:
    lines = [law.warning(reached)]
    if (design.granularity > 1 or design.shared) and law.form not in ("granular", "leverage"):
        lines.append(f"{law.title} knows neither granularity nor shared experts: their effect on "
                     "quality is left out")
    return "; ".join(line for line in lines if line)


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
