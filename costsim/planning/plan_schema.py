"""The TOML file of a plan: its keys, checks, and what is built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.loading import read_toml, validate
from costsim.planning.distributions import Distribution, from_table, split
from costsim.planning.plan_options import PlanOptions
from costsim.planning.targets import Target
from costsim.planning.workload import Demand, demand_of

Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ranged = Above0 | list[Above0] | dict[str, Any]
RangedShare = Share | list[Share] | dict[str, Any]
Term = Literal["on_demand", "spot", "reserved_1y", "reserved_3y", "owned"]
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class TargetTable(BaseModel):
    """Latency targets in seconds."""

    model_config = ConfigDict(extra="forbid")
    ttft_s: float = Field(default=float("inf"), gt=0)
    tpot_s: float = Field(default=float("inf"), gt=0)
    e2e_s: float = Field(default=float("inf"), gt=0)
    ttft_p99_s: float = Field(default=float("inf"), gt=0)
    tpot_p99_s: float = Field(default=float("inf"), gt=0)


class DemandTable(BaseModel):
    """One class of requests: a trace, a generator, or rates by hour with lengths."""

    model_config = ConfigDict(extra="forbid")
    name: str
    model: str
    rate: Ranged | None = None
    rates: list[Rate] = []
    weekdays: dict[str, list[Rate]] = {}
    traffic: dict[str, Any] | None = None
    isl: Ranged = 1024.0
    osl: Ranged = 256.0
    length_cv: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    growth: float = Field(default=0.0, gt=-1, allow_inf_nan=False)
    prefix_hit_share: RangedShare | None = None
    target: TargetTable = TargetTable()

    @model_validator(mode="after")
    def _one_source(self) -> DemandTable:
        given = [self.rate is not None, bool(self.rates), bool(self.weekdays),
                 self.traffic is not None]  # fmt: skip
        if sum(given) != 1:
            raise ValueError("give one of rate, rates (24 or 168), weekdays, traffic")
        if self.rates and len(self.rates) not in (24, 168):
            raise ValueError("rates must be 24 numbers (a day) or 168 (a week from Monday)")
        for day, values in self.weekdays.items():
            if day not in (*_DAYS, "weekday", "weekend") or len(values) != 24:
                raise ValueError("weekdays: 24 rates for monday … sunday, weekday or weekend")
        return self


class HardwareTable(BaseModel):
    """A candidate, with what can be had of it and own prices by term ($/h, or a range)."""

    model_config = ConfigDict(extra="forbid")
    name: str
    limit: float = Field(default=float("inf"), ge=0)
    prices: dict[Term, Ranged] = {}
    provider: str = ""
    region: str = ""


class RedundancyTable(BaseModel):
    """What a fleet survives."""

    model_config = ConfigDict(extra="forbid")
    spare: int = Field(default=0, ge=0, le=100)
    zones: int = Field(default=1, ge=1, le=20)


class SpotTable(BaseModel):
    """How spot capacity may be used."""

    model_config = ConfigDict(extra="forbid")
    max_share: float = Field(default=0.5, ge=0, le=1)
    interruptions_per_hour: Rate | list[Rate] | dict[str, Any] = 0.05
    replace_s: float = Field(default=600.0, ge=0, allow_inf_nan=False)


class PlanTable(BaseModel):
    """A plan: demands, hardware, terms, limits."""

    model_config = ConfigDict(extra="forbid")
    title: str = ""
    demands: list[DemandTable] = Field(min_length=1)
    hardware: list[HardwareTable] = Field(min_length=1)
    terms: list[Term] = ["on_demand", "reserved_1y", "reserved_3y"]
    redundancy: RedundancyTable = RedundancyTable()
    spot: SpotTable = SpotTable()
    budget_usd_per_month: float = Field(default=float("inf"), gt=0)
    power_cap_w: float = Field(default=float("inf"), gt=0)
    electricity: str = "us"
    power: dict[Literal["usd_per_kwh", "kg_co2_per_kwh", "pue"], Above0] = {}
    ownership: dict[str, Rate] = {}
    cold_start_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_accelerators: int = Field(default=16, ge=1, le=1024)
    engine: str = "vllm"
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    replications: int = Field(default=3, ge=2, le=100)
    requests: int = Field(default=3000, ge=100, le=1_000_000)
    disaggregated: bool = True
    seed: int = 0
    uncertainty: dict[str, Any] = {}


def read_plan(path: Path) -> tuple[list[Demand], list[Hardware], PlanOptions]:
    """Return demands, hardware and options of a plan's file.

    A number that is given as a range or a distribution is planned with at its median; the factor
    on it goes to the options' ``uncertain``.
    """
    keys = validate(PlanTable, read_toml(path), str(path))
    try:
        ranges = _Ranges()
        demands = [_demand(d, path.parent, ranges) for d in keys.demands]
        hardware = [load_hardware(h.name) for h in keys.hardware]
        options = _options(keys, ranges)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return demands, hardware, options


class _Ranges:
    """Values of a file, and the distributions of those that are ranges, by the input's name."""

    def __init__(self) -> None:
        self.uncertain: dict[str, Distribution] = {}

    def value(self, given: Any, name: str, where: str) -> float:
        """Return what is planned with, and keep the factor on it."""
        middle, factor = split(given, where)
        if factor is not None:
            self.uncertain[name] = factor
        return middle


def _options(keys: PlanTable, ranges: _Ranges) -> PlanOptions:
    prices = {
        h.name: {str(t): ranges.value(p, f"{t} price of {h.name}", f"hardware {h.name}: prices.{t}")
                 for t, p in h.prices.items()} for h in keys.hardware
    }  # fmt: skip
    breaks = ranges.value(keys.spot.interruptions_per_hour, "interruptions",
                          "spot.interruptions_per_hour")  # fmt: skip
    own = {k: from_table(v, f"uncertainty.{k}") for k, v in keys.uncertainty.items()}
    return PlanOptions(
        terms=tuple(keys.terms),
        limits={h.name: h.limit for h in keys.hardware if np.isfinite(h.limit)},
        spare=keys.redundancy.spare, zones=keys.redundancy.zones,
        max_spot_share=keys.spot.max_share, interruptions_per_hour=breaks,
        replace_s=keys.spot.replace_s, cold_start_s=keys.cold_start_s, power_cap_w=keys.power_cap_w,
        budget_usd_per_month=keys.budget_usd_per_month, max_accelerators=keys.max_accelerators,
        engine=keys.engine, prices=prices,
        providers={h.name: (h.provider, h.region) for h in keys.hardware},
        electricity=keys.electricity, power={str(k): v for k, v in keys.power.items()},
        ownership=keys.ownership, confidence=keys.confidence, replications=keys.replications,
        requests=keys.requests, disaggregated=keys.disaggregated, seed=keys.seed,
        uncertain=ranges.uncertain | own,
    )  # fmt: skip


def _demand(table: DemandTable, folder: Path, ranges: _Ranges) -> Demand:
    from dataclasses import replace

    def value(given: Any, kind: str, key: str) -> float:
        return ranges.value(given, f"{kind} of {table.name}", f"demand {table.name}: {key}")

    target, grown = Target(**table.target.model_dump()), 1.0 + table.growth
    hits = table.prefix_hit_share
    share = None if hits is None else value(hits, "prefix hits", "prefix_hit_share")
    if table.traffic is not None:
        made = demand_of(table.traffic, table.model, name=table.name, target=target, folder=folder)
        return replace(made, rates=np.asarray(made.rates) * grown,
                       prefix_hit_share=made.prefix_hit_share if share is None else share)
    rates = table.rates or _week(table.weekdays)
    if table.rate is not None:
        rates = [value(table.rate, "traffic growth", "rate")]
    return Demand(
        table.name, table.model, np.asarray(rates, float) * grown,
        value(table.isl, "prompt length", "isl"), value(table.osl, "answer length", "osl"),
        table.length_cv, target, prefix_hit_share=share or 0.0,
    )  # fmt: skip


def _week(days: dict[str, list[float]]) -> list[float]:
    if not days:
        return []
    week: list[float] = []
    for at, day in enumerate(_DAYS):
        general = "weekday" if at < 5 else "weekend"
        rates = days.get(day, days.get(general))
        if rates is None:
            raise InputError(f"weekdays: no rates for {day}; give {day} or {general}")
        week += rates
    return week
