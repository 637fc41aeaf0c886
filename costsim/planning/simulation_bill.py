"""What a simulated run costs, and whom: by kind of replica, pool, SLO class (tenant), request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.economics.query import SECONDS_PER_HOUR
from costsim.engine.deployment import Deployment
from costsim.engine.steady_state import operating_point
from costsim.planning.fleet_case import Part
from costsim.serving.results import SimulationResult


@dataclass(frozen=True)
class Bill:
    """Money of a run, after its warm-up; all of it, idle time too, is on the requests.

    Args:
        parts: $ of each kind of replica as low, central, high rent.
        requests: $ of every request; 0 of those in the warm-up.
        classes: by name: ``usd``, ``usd_per_query`` (finished), ``usd_per_million_tokens``.
        pools: the same by pool.
        usd_per_hour: over the samples of the timelines.
    """

    parts: np.ndarray
    requests: np.ndarray
    classes: dict[str, dict[str, float]]
    pools: dict[str, dict[str, float]]
    usd_per_hour: np.ndarray

    @property
    def usd(self) -> float:
        """All of it at the central rent."""
        return float(self.parts[:, 1].sum())

    @property
    def range(self) -> tuple[float, float]:
        """The same at the lowest and the highest rent, over the central one."""
        low, central, high = self.parts.sum(axis=0)
        return (float(low / central), float(high / central)) if central > 0 else (1.0, 1.0)


def bill_of(parts: Sequence[Part], result: SimulationResult) -> Bill:
    """Return the bill of a run.

    A pool's cost is split between its prompts and its answers as the engine's time is
    (`OperatingPoint.input_time_share` at the run's mean batch; all on prompts for prefill replicas,
    on answers for decode replicas), and within each by the tokens that were computed: prompt
    tokens not found in the cache, and tokens generated, also those of requests that were lost.

    Args:
        parts: kinds of replicas, in the order of their numbers in the result.
        result: of the run.
    """
    rents = np.array([[float(v) for v in part.rent] for part in parts])
    held = np.zeros(len(parts))
    for use in result.replicas:
        held[use.kind] += use.accelerators * use.up_s
    costs = held[:, None] / SECONDS_PER_HOUR * rents
    requests = np.zeros(len(result))
    for number, name in enumerate(result.pools):
        mask = (result.table["pool"] == number) & result.after_warmup
        _charge(requests, mask, parts, costs[:, 1], name, result)
    table, done = result.table, result.counted
    tokens = np.where(done, table["prompt"] + table["output"], 0)

    def group(column: str, names: Sequence[str]) -> dict[str, dict[str, float]]:
        return {
            name: _of(requests, tokens, done, table[column] == at) for at, name in enumerate(names)
        }

    return Bill(
        costs, requests, group("tenant", [slo.name for slo in result.classes]),
        group("pool", result.pools), _usd_per_hour(result, rents[:, 1]),
    )  # fmt: skip


def _of(
    requests: np.ndarray, tokens: np.ndarray, done: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    usd = float(requests[mask].sum())
    return {
        "usd": usd,
        "usd_per_query": usd / max(int((done & mask).sum()), 1),
        "usd_per_million_tokens": usd / max(float(tokens[mask].sum()), 1.0) * 1e6,
    }


def _charge(
    requests: np.ndarray, mask: np.ndarray, parts: Sequence[Part], costs: np.ndarray, pool: str,
    result: SimulationResult,
) -> None:
    """Put the cost of a pool's replicas on its requests."""
    table = result.table
    prompt = np.where(mask, np.maximum(table["prompt"] - table["cached"], 0), 0).astype(float)
    answer = np.where(mask, table["generated"], 0).astype(float)
    on_prompts = on_answers = 0.0
    for at, part in enumerate(parts):
        if part.pool == pool:
            share = _prompt_share(part, at, result)
            on_prompts += share * costs[at]
            on_answers += (1.0 - share) * costs[at]
    for cost, weight in ((on_prompts, prompt), (on_answers, answer)):
        each = weight if weight.any() else mask.astype(float)
        requests += cost * each / max(float(each.sum()), 1.0)


def _prompt_share(part: Part, kind: int, result: SimulationResult) -> float:
    if part.role != "both":
        return 1.0 if part.role == "prefill" else 0.0
    mine = [use for use in result.replicas if use.kind == kind]
    busy = sum(use.busy_s for use in mine)
    if busy <= 0:
        return 0.5
    batch = sum(use.mean_batch * use.busy_s for use in mine) / busy
    ranks = int(part.deployment.layout.dp) * int(part.deployment.layout.pp)
    return input_share(part.deployment, batch * ranks, result, part.pool)


def input_share(
    deployment: Deployment, batch: float, result: SimulationResult, pool: str
) -> float:
    """Return the share of the engine's time that goes to prompts at a batch of a run's requests."""
    table = result.table
    done = result.counted & (table["pool"] == result.pools.index(pool))
    if not done.any():
        return 0.5
    point: Any = operating_point(
        deployment, batch=max(batch, 1.0), isl=max(float(table["prompt"][done].mean()), 1.0),
        osl=max(float(table["output"][done].mean()), 1.0),
    )  # fmt: skip
    return float(np.clip(point.input_time_share, 0.0, 1.0))


def _usd_per_hour(result: SimulationResult, rents: np.ndarray) -> np.ndarray:
    """Return the $ per hour at each sample, those of starting replicas left out."""
    lines = result.timelines
    total = np.zeros(len(lines.get("time_s", ())))
    for kind, price in enumerate(rents.tolist()):
        total = total + price * lines.get(f"accelerators_{kind}", np.zeros(len(total)))
    return total
