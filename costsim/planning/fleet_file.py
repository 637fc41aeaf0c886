"""The TOML file of a simulation: replicas, pools with their traffic, and what happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from costsim.economics.prices import TERMS
from costsim.engine.layout import Layout
from costsim.engine.validity import check_layout
from costsim.errors import InputError, unknown_name
from costsim.loading import read_toml, validate
from costsim.planning.estimate import make_deployment
from costsim.planning.fleet_case import FleetCase, Part, RunOptions
from costsim.planning.precision import precision_from
from costsim.serving.operations import FailuresTable, PoolOperations, RestartTable
from costsim.serving.scheduler import Scheduler
from costsim.serving.table_types import Seconds
from costsim.serving.traffic_schema import TrafficTable

_STRICT = ConfigDict(extra="forbid")
_PLAIN = {"int": int, "float": float, "str": str, "bool": bool}
SchedulerTable = create_model(
    "SchedulerTable", __config__=_STRICT,
    **{f.name: (_PLAIN[str(f.type)] | None, None) for f in fields(Scheduler)},  # type: ignore[call-overload]
)
"""Fields of `costsim.serving.scheduler.Scheduler`; those left out are the engine's."""


class ReplicasTable(BaseModel):
    """One kind of replica."""

    model_config = _STRICT
    pool: str = ""
    model: str
    hardware: str
    count: int = Field(default=1, ge=0)
    role: Literal["both", "prefill", "decode"] = "both"
    tp: int = Field(default=0, ge=0)
    pp: int = Field(default=1, ge=1)
    ep: int = Field(default=1, ge=1)
    dp: int = Field(default=1, ge=1)
    cp: int = Field(default=1, ge=1)
    precision: str | None = None
    kv: str | None = None
    engine: str = "vllm"
    price: str = "on_demand"
    scheduler: SchedulerTable = Field(default_factory=SchedulerTable)  # type: ignore[valid-type]


class PoolTable(PoolOperations):
    """Traffic and operations of one pool."""

    traffic: TrafficTable


class FleetTable(BaseModel):
    """Keys of a fleet file."""

    model_config = _STRICT
    title: str = ""
    seed: int = Field(default=0, ge=0)
    replications: int = Field(default=1, ge=1, le=10_000)
    warmup_s: Seconds = Field(default=0.0, ge=0, allow_inf_nan=False)
    until_s: Seconds = Field(default=float("inf"), gt=0)
    sample_s: Seconds = Field(default=0.0, ge=0, allow_inf_nan=False)
    retries: int = Field(default=3, ge=0)
    oversize: Literal["error", "reject"] = "error"
    mode: Literal["fast", "steps"] = "fast"
    invariants: bool = False
    allow_overload: bool = False
    checkpoint_every_s: Seconds = Field(default=10.0, ge=0, allow_inf_nan=False)
    replicas: list[ReplicasTable] = Field(min_length=1)
    pools: dict[str, PoolTable] = Field(min_length=1)
    failures: FailuresTable | None = None
    rolling_restart: RestartTable | None = None


def load_fleet(path: Path | str) -> FleetCase:
    """Return the simulation that a TOML file describes.

    Raises:
        InputError: one line with the file, the key, its value and what is allowed.
    """
    path = Path(path)
    return fleet_of(read_toml(path), path.parent, str(path))


def fleet_of(
    table: Mapping[str, Any], folder: Path | str = ".", where: str = "fleet"
) -> FleetCase:
    """Return the simulation that a table describes.

    Args:
        table: keys as in `FleetTable`.
        folder: that relative paths of traces start from.
        where: file that the table comes from, for messages.
    """
    keys = validate(FleetTable, dict(table), where)
    only = next(iter(keys.pools)) if len(keys.pools) == 1 else ""
    parts = tuple(_part(entry, at, keys, only, where) for at, entry in enumerate(keys.replicas))
    given: Any = table["pools"]
    events = {name: table[name] for name in ("retries", "failures", "rolling_restart")
              if name in table}  # fmt: skip
    options = RunOptions(
        keys.seed, keys.replications, 1, keys.warmup_s, keys.until_s, keys.sample_s, None,
        keys.oversize, keys.mode, keys.invariants, keys.allow_overload, keys.checkpoint_every_s,
    )  # fmt: skip
    return FleetCase(
        parts, {name: pool["traffic"] for name, pool in given.items()},
        {name: {k: v for k, v in pool.items() if k != "traffic"} for name, pool in given.items()},
        events, options, Path(folder), keys.title,
    )  # fmt: skip


def _part(entry: ReplicasTable, at: int, keys: FleetTable, only: str, where: str) -> Part:
    pool = entry.pool or only
    if pool not in keys.pools:
        what = unknown_name("pool", pool, keys.pools) if pool else "name the pool they serve in"
        raise InputError(f"{where}: replicas {at + 1}: {what}")
    if entry.price not in TERMS:
        raise InputError(f"{where}: replicas {at + 1}: {unknown_name('price', entry.price, TERMS)}")
    traffic = keys.pools[pool].traffic
    context = traffic.input_tokens + traffic.output_tokens
    precision = precision_from(entry.model, entry.precision, entry.kv)
    deployment = make_deployment(
        entry.model, entry.hardware, _layout(entry), precision=precision, engine=entry.engine,
        context=context,
    )  # fmt: skip
    check_layout(deployment.model, deployment.layout)
    rules = entry.scheduler.model_dump(exclude_none=True)  # type: ignore[attr-defined]
    return Part(deployment, entry.count, pool, entry.role, entry.price, rules)


def _layout(entry: ReplicasTable) -> Layout | None:
    if not entry.tp and (entry.pp, entry.ep, entry.dp, entry.cp) == (1, 1, 1, 1):
        return None
    return Layout(tp=entry.tp or 1, pp=entry.pp, ep=entry.ep, dp=entry.dp, cp=entry.cp)
