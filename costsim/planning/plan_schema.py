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
from costsim.planning.distributions import Distribution, from_table
from costsim.planning.plan_options import PlanOptions
from costsim.planning.targets import Target
from costsim.planning.workload import Demand, demand_of

Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
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
    rate: Rate | None = None
    rates: list[Rate] = []
    weekdays: dict[str, list[Rate]] = {}
    traffic: dict[str, Any] | None = None
    isl: Above0 = 1024.0
    osl: Above0 = 256.0
    length_cv: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    growth: float = Field(default=0.0, gt=-1, allow_inf_nan=False)
    prefix_hit_share: float | None = Field(default=None, ge=0, lt=1)
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
    """A candidate, with what can be had of it and own prices by term ($/h)."""

    model_config = ConfigDict(extra="forbid")
    name: str
    limit: float = Field(default=float("inf"), ge=0)
    prices: dict[Term, Above0] = {}
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
    interruptions_per_hour: float = Field(default=0.05, ge=0, allow_inf_nan=False)
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
    """Return demands, hardware and options of a plan's file."""
    keys = validate(PlanTable, read_toml(path), str(path))
    try:
        uncertain = {k: from_table(v, f"uncertainty.{k}") for k, v in keys.uncertainty.items()}
        demands = [_demand(d, path.parent) for d in keys.demands]
        hardware = [load_hardware(h.name) for h in keys.hardware]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        return demands, hardware, _options(keys, uncertain)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _options(keys: PlanTable, uncertain: dict[str, Distribution]) -> PlanOptions:
    return PlanOptions(
        terms=tuple(keys.terms),
        limits={h.name: h.limit for h in keys.hardware if np.isfinite(h.limit)},
        spare=keys.redundancy.spare, zones=keys.redundancy.zones,
        max_spot_share=keys.spot.max_share,
        interruptions_per_hour=keys.spot.interruptions_per_hour, replace_s=keys.spot.replace_s,
        cold_start_s=keys.cold_start_s, power_cap_w=keys.power_cap_w,
        budget_usd_per_month=keys.budget_usd_per_month, max_accelerators=keys.max_accelerators,
        engine=keys.engine,
        prices={h.name: {str(t): p for t, p in h.prices.items()} for h in keys.hardware},
        providers={h.name: (h.provider, h.region) for h in keys.hardware},
        electricity=keys.electricity, power={str(k): v for k, v in keys.power.items()},
        ownership=keys.ownership, confidence=keys.confidence, replications=keys.replications,
        requests=keys.requests,
        disaggregated=keys.disaggregated, seed=keys.seed, uncertain=uncertain,
    )  # fmt: skip


def _demand(table: DemandTable, folder: Path) -> Demand:
    from dataclasses import replace

    target = Target(**table.target.model_dump())
    grown = 1.0 + table.growth
    if table.traffic is not None:
        made = demand_of(table.traffic, table.model, name=table.name, target=target, folder=folder)
        hits = table.prefix_hit_share
        return replace(made, rates=np.asarray(made.rates) * grown,
                       prefix_hit_share=made.prefix_hit_share if hits is None else hits)
    rates = [table.rate] if table.rate is not None else table.rates or _week(table.weekdays)
    return Demand(
        table.name, table.model, np.asarray(rates, float) * grown, table.isl, table.osl,
        table.length_cv, target, prefix_hit_share=table.prefix_hit_share or 0.0,
    )  # fmt: skip


def _week(days: dict[str, list[float]]) -> list[float]:
    week: list[float] = []
    for at, day in enumerate(_DAYS):
        general = "weekday" if at < 5 else "weekend"
        rates = days.get(day, days.get(general))
        if rates is None:
            raise InputError(f"weekdays: no rates for {day}; give {day} or {general}")
        week += rates
    return week
