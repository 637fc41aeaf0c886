"""What runs a fleet besides its replicas, from a scenario's table: scaling, faults, admission."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from costsim.loading import validate
from costsim.serving.controllers import Autoscaler, Failures, RollingRestart
from costsim.serving.pool import Admission, Link


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AutoscalerTable(_Table):
    """Fields of `costsim.serving.controllers.Autoscaler`."""

    metric: Literal["utilisation", "queue", "predictive"] = "utilisation"
    target: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    least: int = Field(default=1, ge=1)
    most: int = Field(default=16, ge=1)
    every_s: float = Field(default=15.0, gt=0, allow_inf_nan=False)
    cold_start_s: float = Field(default=120.0, ge=0, allow_inf_nan=False)
    cool_down_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)
    slots: int = Field(default=0, ge=0)
    role: Literal["both", "prefill", "decode"] = "both"
    pool: int = Field(default=0, ge=0)


class FailuresTable(_Table):
    """Fields of `costsim.serving.controllers.Failures`."""

    mtbf_s: float = Field(gt=0, allow_inf_nan=False)
    mttr_s: float = Field(gt=0, allow_inf_nan=False)


class RestartTable(_Table):
    """Fields of `costsim.serving.controllers.RollingRestart`."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    down_s: float = Field(gt=0, allow_inf_nan=False)
    drain_limit_s: float = Field(default=600.0, gt=0)


class AdmissionTable(_Table):
    """Fields of `costsim.serving.pool.Admission`."""

    max_outstanding: float = Field(default=float("inf"), gt=0)
    protected: float = Field(default=0.0, ge=0, lt=1)
    dispatch_limit: int = Field(default=0, ge=0)


class LinkTable(_Table):
    """Fields of `costsim.serving.pool.Link`."""

    bytes_per_s: float = Field(gt=0, allow_inf_nan=False)
    latency_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class OperationsTable(_Table):
    """Keys of an operations table."""

    router: str = "least_outstanding"
    retries: int = Field(default=3, ge=0)
    autoscaler: AutoscalerTable | None = None
    failures: FailuresTable | None = None
    rolling_restart: RestartTable | None = None
    admission: AdmissionTable | None = None
    link: LinkTable | None = None


def load_operations(table: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return keywords of `costsim.serving.simulation.simulate` that a table describes.

    Args:
        table: ``router``, ``retries`` and the subtables ``autoscaler``, ``failures``,
            ``rolling_restart``, ``admission``, ``link``.
        seed: of the failures.

    Raises:
        InputError: one line with the key, its value and what is allowed.
    """
    keys = validate(OperationsTable, table, "operations")
    controllers: list[Any] = []
    if keys.autoscaler is not None:
        controllers.append(Autoscaler(**keys.autoscaler.model_dump()))
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
