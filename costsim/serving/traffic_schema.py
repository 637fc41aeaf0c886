"""The table of a scenario that describes traffic: its keys, checks, and what is built from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from costsim.errors import InputError
from costsim.loading import validate
from costsim.serving import arrivals
from costsim.serving.arrivals import DAY_S
from costsim.serving.flow import Sessions, SloClass, Traffic, from_trace, generated
from costsim.serving.table_types import Rate, Seconds
from costsim.serving.traces import read_trace


class ClassTable(BaseModel):
    """One SLO class."""

    model_config = ConfigDict(extra="forbid")
    name: str
    share: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    ttft_s: Seconds = Field(default=float("inf"), gt=0)
    tpot_s: Seconds = Field(default=float("inf"), gt=0)
    e2e_s: Seconds = Field(default=float("inf"), gt=0)
    timeout_s: Seconds = Field(default=float("inf"), gt=0)
    priority: int = 0


class SessionTable(BaseModel):
    """Follow-up requests."""

    model_config = ConfigDict(extra="forbid")
    turns: int = Field(default=0, ge=0)
    think_s: Seconds = Field(default=0.0, ge=0, allow_inf_nan=False)
    users: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    grows: bool = True
    geometric: bool = False


class TrafficTable(BaseModel):
    """Keys of a traffic table."""

    model_config = ConfigDict(extra="forbid")
    trace: str = ""
    format: Literal["auto", "azure", "burstgpt", "csv", "mooncake", "sharegpt"] = "auto"
    sort: bool = False
    arrivals: Literal["trace", "poisson", "gamma", "mmpp", "diurnal", "weekly", "curve"] = "trace"
    rate: Rate = Field(default=0.0, ge=0, allow_inf_nan=False)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    cv: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    rates: list[float] = []
    stays_s: list[Seconds] = []
    curve: list[float] = []
    period_s: Seconds = Field(default=DAY_S, gt=0, allow_inf_nan=False)
    low: float = Field(default=0.4, ge=0, le=1)
    peak_hour: float = Field(default=14.0, ge=0, le=24)
    weekend: float = Field(default=0.6, ge=0, allow_inf_nan=False)
    requests: int = Field(default=0, ge=0, le=100_000_000)
    duration_s: Seconds = Field(default=0.0, ge=0, allow_inf_nan=False)
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    length_cv: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    images: int = Field(default=0, ge=0)
    image_tokens: int = Field(default=0, ge=0)
    image_height: int = Field(default=1024, ge=1)
    image_width: int = Field(default=1024, ge=1)
    prefix_tokens: int = Field(default=0, ge=0)
    prefixes: int = Field(default=1, ge=1)
    classes: list[ClassTable] = []
    sessions: SessionTable | None = None

    @model_validator(mode="after")
    def _enough(self) -> TrafficTable:
        if not self.trace and not (self.input_tokens and self.output_tokens):
            raise ValueError("give a trace, or input_tokens and output_tokens")
        if self.arrivals == "trace" and not self.trace and not self._closed:
            raise ValueError("arrivals = 'trace' needs a trace; give 'poisson' or another")
        if self.arrivals not in ("trace", "mmpp") and not self.rate:
            raise ValueError(f"arrivals = '{self.arrivals}' needs a rate (requests per second)")
        return self

    @property
    def _closed(self) -> bool:
        return self.sessions is not None and self.sessions.users > 0


def build(table: dict[str, Any], folder: Path, seed: int) -> Traffic:
    """Return the traffic of a table; see `costsim.serving.traffic.load_traffic`."""
    keys = validate(TrafficTable, table, "traffic")
    random = np.random.default_rng([seed, 1])
    source = None
    if keys.trace:
        path = Path(keys.trace).expanduser()
        source = from_trace(read_trace(path if path.is_absolute() else folder / path, keys.format,
                                       keys.sort))  # fmt: skip
    flow = _from_source(keys, source, random) if source else _from_lengths(keys, random)
    if keys.duration_s:
        count = int(np.searchsorted(flow.arrival, keys.duration_s, side="right"))
        flow = _first(flow, max(1, count))
    if keys.images:
        tokens = flow.prompt + keys.images * keys.image_tokens
        images = np.full(len(flow), keys.images)
        flow = replace(flow, prompt=tokens, columns=flow.columns | {"images": images})
    if keys.prefix_tokens:
        shared = {"prefix_tokens": np.full(len(flow), keys.prefix_tokens),
                  "prefix_group": np.arange(len(flow)) % keys.prefixes}  # fmt: skip
        flow = replace(flow, columns=flow.columns | shared)
    if keys.classes:
        flow = flow.in_classes([SloClass(**c.model_dump()) for c in keys.classes], seed)
    if keys.sessions is not None:
        until_s = keys.duration_s or float("inf")
        rules = Sessions(**keys.sessions.model_dump(), until_s=until_s)
        flow = replace(flow, sessions=rules)
    return flow


def _from_source(keys: TrafficTable, source: Traffic, random: np.random.Generator) -> Traffic:
    count = keys.requests or len(source)
    if keys.arrivals == "trace":
        flow = source.repeated(count) if count > len(source) else _first(source, count)
        if keys.rate:
            flow = flow.at_rate(keys.rate)
        return replace(flow, arrival=flow.arrival / keys.scale)
    rows = source.repeated(_count(keys, len(source)))
    return replace(rows, arrival=_times(keys, len(rows), random))


def _from_lengths(keys: TrafficTable, random: np.random.Generator) -> Traffic:
    if keys.arrivals == "trace":
        count = keys.sessions.users if keys.sessions else 1
        times = np.zeros(count)
    else:
        count = _count(keys, 0)
        times = _times(keys, count, random)
    prompt = _lengths(keys.input_tokens, keys.length_cv, count, random)
    return generated(times, prompt, _lengths(keys.output_tokens, keys.length_cv, count, random))


def _count(keys: TrafficTable, otherwise: int) -> int:
    if keys.requests:
        return keys.requests
    rate = keys.rate or (sum(keys.rates) / len(keys.rates) if keys.rates else 0.0)
    if keys.duration_s:
        return max(1, int(1.2 * rate * keys.duration_s + 6 * (rate * keys.duration_s) ** 0.5))
    if not otherwise:
        raise InputError("traffic: give requests or duration_s")
    return otherwise


def _times(keys: TrafficTable, count: int, random: np.random.Generator) -> np.ndarray:
    kind, rate = keys.arrivals, keys.rate * keys.scale
    if kind == "gamma":
        return arrivals.gamma(rate, keys.cv, count, random)
    if kind == "mmpp":
        return arrivals.mmpp([r * keys.scale for r in keys.rates], keys.stays_s, count, random)
    if kind == "diurnal":
        curve = arrivals.diurnal(keys.low, keys.peak_hour)
        return arrivals.by_curve(rate, curve.tolist(), arrivals.DAY_S, count, random)
    if kind == "weekly":
        week = arrivals.weekly(keys.low, keys.peak_hour, keys.weekend)
        return arrivals.by_curve(rate, week.tolist(), 7 * arrivals.DAY_S, count, random)
    if kind == "curve":
        return arrivals.by_curve(rate, keys.curve, keys.period_s, count, random)
    return arrivals.poisson(rate, count, random)


def _lengths(mean: int, cv: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Return lengths of a mean: fixed, or log-normal with a coefficient of variation."""
    if not cv:
        return np.full(count, mean, dtype=np.int64)
    sigma = np.sqrt(np.log1p(cv**2))
    drawn = random.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.maximum(1, np.rint(drawn)).astype(np.int64)


def _first(flow: Traffic, count: int) -> Traffic:
    return flow if count >= len(flow) else flow.repeated(count)
