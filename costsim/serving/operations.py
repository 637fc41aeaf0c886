"""What runs a fleet besides its replicas, from a scenario's table: scaling, faults, admission."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from costsim.loading import validate
from costsim.serving.controllers import Autoscaler
from costsim.serving.faults import Failures, RollingRestart
from costsim.serving.pool import Admission, Link
from costsim.serving.requests import RequestTable
from costsim.serving.routers import make_router
from costsim.serving.table_types import BytesPerSecond, Seconds


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AutoscalerTable(_Table):
    """Fields of `costsim.serving.controllers.Autoscaler`."""

    metric: Literal["utilisation", "queue", "predictive"] = "utilisation"
    target: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    least: int = Field(default=1, ge=1)
    most: int = Field(default=16, ge=1)
    every_s: Seconds = Field(default=15.0, gt=0, allow_inf_nan=False)
    cold_start_s: Seconds = Field(default=120.0, ge=0, allow_inf_nan=False)
    cool_down_s: Seconds = Field(default=300.0, ge=0, allow_inf_nan=False)
    slots: int = Field(default=0, ge=0)
    role: Literal["both", "prefill", "decode"] = "both"


class FailuresTable(_Table):
    """Fields of `costsim.serving.controllers.Failures`."""

    mtbf_s: Seconds = Field(gt=0, allow_inf_nan=False)
    mttr_s: Seconds = Field(gt=0, allow_inf_nan=False)
    node_accelerators: int = Field(default=8, ge=0)


class RestartTable(_Table):
    """Fields of `costsim.serving.controllers.RollingRestart`."""

    start_s: Seconds = Field(ge=0, allow_inf_nan=False)
    down_s: Seconds = Field(gt=0, allow_inf_nan=False)
    drain_limit_s: Seconds = Field(default=600.0, gt=0)


class AdmissionTable(_Table):
    """Fields of `costsim.serving.pool.Admission`."""

    max_outstanding: float = Field(default=float("inf"), gt=0)
    protected: float = Field(default=0.0, ge=0, lt=1)
    dispatch_limit: int = Field(default=0, ge=0)


class LinkTable(_Table):
    """Fields of `costsim.serving.pool.Link`."""

    bytes_per_s: BytesPerSecond = Field(gt=0, allow_inf_nan=False)
    latency_s: Seconds = Field(default=0.0, ge=0, allow_inf_nan=False)


class PoolOperations(_Table):
    """Keys of one pool."""

    router: str = "least_outstanding"
    autoscaler: AutoscalerTable | None = None
    admission: AdmissionTable | None = None
    link: LinkTable | None = None


class OperationsTable(PoolOperations):
    """Keys of an operations table."""

    retries: int = Field(default=3, ge=0)
    failures: FailuresTable | None = None
    rolling_restart: RestartTable | None = None


def load_operations(table: dict[str, Any], seed: int = 0, pool: int = 0) -> dict[str, Any]:
    """Return keywords of `costsim.serving.simulation.simulate` that a table describes.

    Args:
        table: ``router``, ``retries`` and the subtables ``autoscaler``, ``failures``,
            ``rolling_restart``, ``admission``, ``link``.
        seed: of the failures.
        pool: index of the pool that the autoscaler scales.

    Raises:
        InputError: one line with the key, its value and what is allowed.
    """
    keys = validate(OperationsTable, table, "operations")
    make_router(keys.router, RequestTable(), Random(seed))
    controllers: list[Any] = []
    if keys.autoscaler is not None:
        controllers.append(Autoscaler(pool=pool, **keys.autoscaler.model_dump()))
    if keys.failures is not None:
        controllers.append(Failures(**keys.failures.model_dump(), seed=seed))
    if keys.rolling_restart is not None:
        controllers.append(RollingRestart(**keys.rolling_restart.model_dump()))
    found: dict[str, Any] = {"router": keys.router, "retries": keys.retries}
    found["controllers"] = controllers
    if keys.admission is not None:
        found["admission"] = Admission(**keys.admission.model_dump())
    if keys.link is not None:
        found["link"] = Link(**keys.link.model_dump())
    return found
