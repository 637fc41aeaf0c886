"""What a plan has to carry: demand by hour, lengths, targets, and the requests to check it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.planning.cached import hit_share
from costsim.planning.targets import Target
from costsim.serving.traffic import SloClass, Traffic, load_traffic

HOURS_PER_MONTH = 730.5
_SHARED_BLOCK = 16
_HITS_OF = 20_000  # requests of a trace that its hit share is counted in


@dataclass(frozen=True)
class Demand:
    """Requests of one class for one model.

    Args:
        name: to show.
        model: name of the model.
        rates: requests/s by hour (24 of a day, or 168 of a week from Monday, or 1).
        isl, osl: mean tokens of a request.
        length_cv: coefficient of variation of lengths drawn for the check.
        target: latencies.
        attainment: share of requests that must meet the targets where they are tails.
        trace: requests to check with; None: Poisson arrivals with drawn lengths.
        prefix_hit_share: of the prompt tokens, found in the prefix cache.
    """

    name: str
    model: str
    rates: np.ndarray
    isl: float
    osl: float
    length_cv: float = 0.0
    target: Target = field(default_factory=Target)
    attainment: float = 0.99
    trace: Traffic | None = None
    prefix_hit_share: float = 0.0

    def __post_init__(self) -> None:
        rates = np.asarray(self.rates, float)
        if rates.ndim != 1 or len(rates) not in (1, 24, 168):
            raise InputError(f"demand '{self.name}': rates must be 1, 24 or 168 numbers by hour")
        if not np.all(np.isfinite(rates)) or np.any(rates < 0) or rates.max() <= 0:
            raise InputError(f"demand '{self.name}': rates must be finite, not negative nor all 0")
        if not (self.isl > 0 and self.osl > 0):
            raise InputError(f"demand '{self.name}': isl and osl must be above zero")
        if not 0 <= self.prefix_hit_share < 1:
            raise InputError(f"demand '{self.name}': prefix_hit_share must be from 0 to below 1")

    def requests(self, rate: float, count: int, seed: int) -> Traffic:
        """Return requests at a rate, for the check: the trace's, or drawn ones."""
        if self.trace is not None:
            chosen = self.trace.repeated(max(count, 2)) if len(self.trace) < count else self.trace
            flow = chosen if len(chosen) <= count else _window(chosen, count, seed)
            return flow.at_rate(rate)
        table = {"arrivals": "poisson", "rate": rate, "requests": count,
                 "input_tokens": round(self.isl), "output_tokens": round(self.osl),
                 "length_cv": self.length_cv}  # fmt: skip
        flow = load_traffic(table, ".", seed)
        return self._with_shared_prompt(flow) if self.prefix_hit_share > 0 else flow

    def _with_shared_prompt(self, flow: Traffic) -> Traffic:
        """Return requests that begin alike, as those of one system prompt do."""
        blocks = max(1, round(self.prefix_hit_share * self.isl / _SHARED_BLOCK))
        shared = tuple(range(blocks))
        return replace(flow, block_hashes=[shared] * len(flow), hash_tokens=_SHARED_BLOCK)

    @property
    def slo(self) -> SloClass:
        """The targets that every single request is held to."""
        t = self.target
        ttft, tpot = min(t.ttft_s, t.ttft_p99_s), min(t.tpot_s, t.tpot_p99_s)
        return SloClass(self.name, ttft, tpot, t.e2e_s)


def _window(flow: Traffic, count: int, seed: int) -> Traffic:
    start = int(np.random.default_rng([seed, 11]).integers(0, len(flow) - count + 1))
    rows = slice(start, start + count)
    hashes = flow.block_hashes
    return replace(
        flow, arrival=flow.arrival[rows] - flow.arrival[start], prompt=flow.prompt[rows],
        output=flow.output[rows], block_hashes=None if hashes is None else hashes[rows],
        columns={k: v[rows] for k, v in flow.columns.items()},
    )  # fmt: skip


def hours_of(demands: Sequence[Demand]) -> tuple[np.ndarray, np.ndarray]:
    """Return rates (demand by hour) on the finest common hours, and hours a month each stands for.

    Args:
        demands: with 1, 24 or 168 rates each.
    """
    count = max(len(d.rates) for d in demands)
    rates = np.stack([np.resize(np.asarray(d.rates, float), count) for d in demands])
    return rates, np.full(count, HOURS_PER_MONTH / count)


def demand_of(
    traffic: Any, model: str, *, name: str = "", target: Target | None = None,
    isl: float = 0.0, osl: float = 0.0, folder: Path | str = ".",
) -> Demand:
    """Return the demand that a traffic describes.

    Args:
        traffic: a `Demand`, a rate (requests/s), rates by hour, a `Traffic`, the table of one
            (as in a scenario), or the path of a trace.
        model: name of the model.
        name: to show.
        target: latencies.
        isl, osl: mean tokens, where the traffic is rates.
        folder: that relative paths start from.
    """
    target = target or Target()
    if isinstance(traffic, Demand):
        return traffic
    if isinstance(traffic, str | Path):
        traffic = {"trace": str(traffic)}
    if isinstance(traffic, dict):
        traffic = load_traffic(traffic, folder)
    if isinstance(traffic, Traffic):
        return from_traffic(traffic, model, name or model, target)
    rates = np.atleast_1d(np.asarray(traffic, float))
    return Demand(name or model, model, rates, isl, osl, target=target)


def from_traffic(traffic: Traffic, model: str, name: str, target: Target) -> Demand:
    """Return the demand of recorded or generated requests: their rate by hour, their lengths.

    A record of less than two hours counts as one rate; one of up to a day by hours of the day;
    a longer one by hours of the week, averaged over weeks. Where it has hashes of blocks, the
    share of the prompt tokens that a boundless prefix cache finds is counted in it.
    """
    span_h = float(traffic.arrival[-1] - traffic.arrival[0]) / 3600.0
    isl, osl = float(np.mean(traffic.prompt)), float(np.mean(traffic.output))
    if span_h < 2.0:
        if not np.isfinite(traffic.rate):
            raise InputError(f"demand '{name}': all requests arrive at once; a rate is needed")
        rates = np.array([traffic.rate])
    else:
        period = 24 if span_h <= 25.0 else 168
        hour = ((traffic.arrival - traffic.arrival[0]) // 3600.0).astype(int)
        seen = np.bincount(np.arange(int(np.ceil(span_h))) % period, minlength=period)
        counts = np.bincount(hour % period, minlength=period)
        rates = np.where(seen > 0, counts / np.maximum(seen, 1) / 3600.0, 0.0)
    hits = 0.0
    if traffic.block_hashes is not None:
        first = slice(0, _HITS_OF)
        hits = hit_share(traffic.block_hashes[first], traffic.prompt[first], traffic.hash_tokens)
    return Demand(name, model, rates, max(isl, 1.0), max(osl, 1.0), target=target, trace=traffic,
                  prefix_hit_share=hits)  # fmt: skip
