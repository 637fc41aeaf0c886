"""What a scenario file may hold (pydantic)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from costsim.errors import unknown_name
from costsim.planning.studies_schema import AnyStudy, Strict, quantity

Time = Annotated[float, quantity("time")]
Rate = Annotated[float, quantity("rate")]
Count = Annotated[float, quantity("count"), Field(gt=0)]
Amount = Annotated[float, quantity("count")]


class ModelRow(Strict):
    """A model by name, or a variant of one that stands before it."""

    key: str
    model: str = ""
    title: str = ""
    group: str = ""
    variant_of: str = ""
    dense: bool = False
    experts: int = Field(default=0, ge=0)
    top_k: int = Field(default=0, ge=0)
    shared_experts: int = Field(default=0, ge=0)
    keep: Literal["active", "total"] = "active"
    precision: str = ""
    kv: str = ""
    routing_alpha: float = Field(default=0.0, ge=0.0)
    caveat: str = ""
    reference: bool = False

    @field_validator("precision", "kv")
    @classmethod
    def _known(cls, value: str) -> str:
        from costsim.dtypes import BYTES_PER_ELEMENT

        if value and value not in BYTES_PER_ELEMENT:
            raise ValueError(str(unknown_name("data type", value, BYTES_PER_ELEMENT)))
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> ModelRow:
        if bool(self.model) == bool(self.variant_of):
            raise ValueError("either 'model' or 'variant_of' is needed")
        if self.variant_of and not self.dense and not (self.experts and self.top_k):
            raise ValueError("a variant needs 'experts' and 'top_k', or 'dense = true'")
        return self


class HardwareRow(Strict):
    """An accelerator, how many can be had, and the term of its rent."""

    hardware: str
    limit: int = Field(default=64, ge=1)
    price: str = "on_demand"


class TargetTable(Strict):
    """Latency targets."""

    ttft: Time = 0.0
    tpot: Time = 0.0
    e2e: Time = 0.0


class ImagesTable(Strict):
    """Images of one request."""

    count: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class WorkloadRow(Strict):
    """Requests of one kind."""

    key: str
    title: str = ""
    isl: Count
    osl: Count
    rate: Rate = 0.0
    target: TargetTable = TargetTable()
    images: ImagesTable | None = None
    users: Amount = 0.0
    queries_per_user_day: Amount = 0.0
    cached_share: float = Field(default=0.0, ge=0.0, lt=1.0)


class SweepTable(Strict):
    """Numbers of experts to sweep at equal active parameters."""

    base: str = ""
    experts: list[int] = Field(default_factory=list)
    top_k: int = Field(default=2, ge=1)


class ApiPriceRow(Strict):
    """A public price of tokens to compare with."""

    name: str
    date: str
    input_usd_per_million: float = Field(ge=0)
    output_usd_per_million: float = Field(ge=0)
    source: str
    model: str = ""


class ScenarioTable(Strict):
    """A whole scenario."""

    title: str
    question: str
    source: str = ""
    engine: str = "vllm"
    baseline: str = ""
    max_accelerators: int = Field(default=64, ge=1, le=1024)
    simulate_s: Time = 0.0
    seed: int = 0
    models: list[ModelRow] = Field(min_length=1)
    hardware: list[HardwareRow] = Field(min_length=1)
    workloads: list[WorkloadRow] = Field(min_length=1)
    sweep: SweepTable = SweepTable()
    api_prices: list[ApiPriceRow] = Field(default_factory=list)
    studies: list[AnyStudy] = Field(default_factory=list)
    assumptions: list[str] = Field(default_factory=list)
