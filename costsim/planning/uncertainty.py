"""How sure a plan and an operating point are: intervals, probability, what to measure next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.economics.query import usd_per_query
from costsim.engine.deployment import Deployment
from costsim.engine.steady_state import operating_point
from costsim.errors import InputError
from costsim.planning.distributions import Distribution, draw, lognormal, sobol_shares
from costsim.planning.executor import Executor, mapped
from costsim.planning.uncertainty_inputs import plan_inputs
from costsim.planning.uncertainty_plan import PlanModel, plan_model

if TYPE_CHECKING:
    from costsim.models.architecture import Model
    from costsim.planning.plan import Plan

_CHUNK = 65_536


@dataclass(frozen=True)
class PointStudy:
    """An operating point under uncertainty.

    Args:
        draws: of the inputs, by name.
        usd_per_query, ttft_s, tpot_s: of each draw.
        sobol: first-order and total index of each input on $ per query.
    """

    draws: dict[str, np.ndarray]
    usd_per_query: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    sobol: dict[str, tuple[float, float]]

    def interval(self, name: str, level: float = 0.90) -> tuple[float, float]:
        """Return the central interval of ``usd_per_query``, ``ttft_s`` or ``tpot_s``."""
        return interval_of_draws(getattr(self, name), level)


def interval_of_draws(values: np.ndarray, level: float = 0.90) -> tuple[float, float]:
    """Return the quantiles that hold a share of the draws in the middle."""
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def point_inputs(
    deployment: Deployment, batch: float, isl: float, osl: float, price_log_error: float,
    length_range: float = 1.1,
) -> dict[str, Distribution]:
    """Return the uncertain inputs of an operating point, as factors on its figures.

    Calibration error is the engine's own; lengths are within ``length_range`` up or down (90 %).
    """
    point = operating_point(deployment, batch=batch, isl=isl, osl=osl)
    around = Distribution("lognormal", 1.0 / length_range, length_range)
    return {
        "prefill time": lognormal(float(np.max(point.log_error_ttft))),
        "decode time": lognormal(float(np.max(point.log_error_tpot))),
        "price": lognormal(price_log_error),
        "prompt length": around,
        "answer length": around,
    }


def study_point(
    deployment: Deployment, *, batch: float, isl: float, osl: float, usd_per_hour: float,
    inputs: Mapping[str, Distribution], draws: int = 1_000_000, seed: int = 0,
    sobol_draws: int = 1024, executor: Executor | None = None,
) -> PointStudy:
    """Return an operating point under uncertain inputs, priced draw by draw.

    Args:
        deployment: what runs (scalars).
        batch, isl, osl: requests in flight and tokens.
        usd_per_hour: of one accelerator.
        inputs: factors by name, as from `point_inputs`.
        draws: of quasi-Monte Carlo. seed: of the draws.
        sobol_draws: base size for the indices; 0 for none.
        executor: where chunks of the draws are priced; None: here.
    """
    price = partial(_priced, deployment, batch, isl, osl, usd_per_hour)
    drawn = draw(inputs, draws, seed)
    chunks = [{n: v[at : at + _CHUNK] for n, v in drawn.items()} for at in range(0, draws, _CHUNK)]
    parts = mapped(executor, price, chunks)
    usd, ttft, tpot = (np.concatenate([part[i] for part in parts]) for i in range(3))
    sobol = sobol_shares(lambda d: price(d)[0], inputs, sobol_draws, seed) if sobol_draws else {}
    return PointStudy(drawn, usd, ttft, tpot, sobol)


def _priced(
    deployment: Deployment, batch: float, isl: float, osl: float, usd_per_hour: float,
    drawn: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    point = operating_point(deployment, batch=batch, isl=isl * drawn["prompt length"],
                            osl=np.maximum(osl * drawn["answer length"], 1.0),
                            detailed=False)  # fmt: skip
    ttft, tpot = point.ttft_s * drawn["prefill time"], point.tpot_s * drawn["decode time"]
    steps = np.maximum(np.asarray(point.osl) - 1.0, 0.0)
    rate = np.asarray(batch, float) / (ttft + steps * tpot)
    hourly = usd_per_hour * float(deployment.accelerators) * drawn["price"]
    return usd_per_query(hourly, rate), ttft, tpot


@dataclass(frozen=True)
class PlanStudy:
    """A plan under uncertainty.

    Args:
        draws: how many.
        holds: probability that the fleet as planned carries every hour within the targets.
        usd_per_query: 90 % interval, the fleet following the load with on-demand chips.
        peak_chips: 90 % interval of the chips that the busiest hour needs.
        usd_per_month: 90 % interval of the bill of the fleet that follows.
        chips_enough: by a number of chips, the share of the draws whose busiest hour needs no more.
        sobol: indices of each input on $ per query. chips_sobol: on the need for chips.
        inputs: distributions, as text.
    """

    draws: int
    holds: float
    usd_per_query: tuple[float, float]
    peak_chips: tuple[float, float]
    usd_per_month: tuple[float, float]
    chips_enough: dict[int, float]
    sobol: dict[str, tuple[float, float]]
    chips_sobol: dict[str, tuple[float, float]]
    inputs: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return dict(vars(self))

    def lines(self) -> list[tuple[str, str]]:
        """Return rows of a table."""
        low, high = (1e3 * v for v in self.usd_per_query)
        rows = [
            ("targets hold", f"with probability {100 * self.holds:.1f} % ({self.draws:,} draws)"),
            ("per 1,000 queries", f"${low:.4g} to ${high:.4g} (90 %)"),
            ("a month", f"${self.usd_per_month[0]:,.0f} to ${self.usd_per_month[1]:,.0f} (90 %)"),
            ("chips at the peak", f"{self.peak_chips[0]:.0f} to {self.peak_chips[1]:.0f} (90 %)"),
        ]
        for n, p in self._around():
            enough = f"{n} chip{' is' if n == 1 else 's are'} enough"
            rows.append((enough, f"with probability {100 * p:.0f} %"))
        ranked = sorted(self.sobol.items(), key=lambda item: -item[1][1])
        rows += [(f"variance from {n}", f"{100 * t:.0f} %") for n, (_, t) in ranked[:5]]
        return rows


    def _around(self, most: int = 6) -> list[tuple[int, float]]:
        """Return the numbers of chips of interest: up to the first that is enough at 99 %."""
        rows = [(n, p) for n, p in self.chips_enough.items() if p >= 0.01]
        last = next((i for i, (_, p) in enumerate(rows) if p >= 0.99), len(rows) - 1)
        step = max(1, -(-(last + 1) // most))
        return rows[last % step : last + 1 : step]


def study_plan(
    plan: Plan, *, draws: int = 4096, seed: int = 0,
    inputs: Mapping[str, Distribution] | None = None, sobol_draws: int = 512,
) -> PlanStudy:
    """Return how sure a plan is.

    Args:
        plan: to study. draws: of quasi-Monte Carlo. seed: of the draws.
        inputs: in place of those of `costsim.planning.uncertainty_plan.plan_inputs`.
        sobol_draws: base size for the indices.
    """
    model = plan_model(plan)
    chosen = dict(model.inputs) | dict(inputs or {})
    drawn = draw(chosen, draws, seed)
    outcome = model.outcome(drawn)
    sobol = sobol_shares(lambda d: model.outcome(d).usd_per_query, chosen, sobol_draws, seed)
    chips = sobol_shares(lambda d: model.outcome(d).need, chosen, sobol_draws, seed)
    return PlanStudy(
        draws, float(np.mean(outcome.holds)), interval_of_draws(outcome.usd_per_query),
        interval_of_draws(outcome.peak_chips), interval_of_draws(outcome.usd),
        _enough(outcome.peak_chips), sobol, chips,
        {n: f"{d.kind} {d.low:.3g} to {d.high:.3g}" for n, d in chosen.items()},
    )  # fmt: skip


def _enough(peak_chips: np.ndarray) -> dict[int, float]:
    counts, times = np.unique(np.round(peak_chips).astype(int), return_counts=True)
    shares = np.cumsum(times) / len(peak_chips)
    return {int(n): float(p) for n, p in zip(counts, shares, strict=True)}


def robust_plan(
    plan: Plan, models: dict[str, Model], share: float = 0.95, *, draws: int = 4096,
    inputs: Mapping[str, Distribution] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Return the cheapest plan that holds in a share of the draws.

    Demand is inflated until the fleet planned for it holds in that share: bisection on the
    factor, whose cost never falls. The result keeps the true demand.

    Args:
        plan: to make robust. models: by name. share: of the draws.
        draws: of quasi-Monte Carlo. inputs: as in `study_plan`.
        progress: told what is tried.

    Raises:
        InputError: the limits allow no such plan.
    """
    from costsim.planning.plan_fleet import solve_problem
    from costsim.planning.plan_worth import bill

    if not 0 < share < 1:
        raise InputError(f"robust: share = {share}: must be within 0 to 1")
    base = plan.problem
    chosen = plan_inputs(plan, everything=True) | dict(inputs or {})
    drawn = draw(chosen, draws, plan.options.seed)

    def fleet_for(factor: float) -> tuple[Plan, float]:
        inflated = replace(base.everything, demand=base.everything.demand * factor)
        more = replace(base, everything=inflated)
        found = solve_problem(more, plan.options)
        made = replace(plan, solution=found, held=(), rounds=0, runners_up=(), worth=None,
                       bill=bill(more, found))  # fmt: skip
        return made, float(np.mean(plan_model(made).outcome(drawn).holds))

    low, high = 1.0, 1.0
    best, holds = fleet_for(1.0)
    while holds < share:
        low, high = high, high * 1.5
        if high > 60:
            raise InputError("robust: no fleet within 60 times the load holds in that share")
        if progress is not None:
            progress(f"robust: {high:.2f} times the load")
        best, holds = fleet_for(high)
    while high - low > 0.01 * high:
        middle = 0.5 * (low + high)
        made, holds = fleet_for(middle)
        low, high, best = (low, middle, made) if holds >= share else (middle, high, best)
    return best


__all__ = ["PlanModel", "PlanStudy", "PointStudy", "point_inputs", "robust_plan", "study_plan",
           "study_point"]  # fmt: skip
