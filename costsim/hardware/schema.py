"""What a hardware profile may hold: the TOML tables, validated (pydantic)."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from costsim.errors import InputError
from costsim.units import parse_quantity

PROVENANCES = ("datasheet", "measured", "published", "estimated", "unverified", "rumoured")
Provenance = Literal["datasheet", "measured", "published", "estimated", "unverified", "rumoured"]


def _quantity(dimension: str) -> BeforeValidator:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return value
        try:
            return {"value": parse_quantity(value, dimension)}
        except InputError as error:
            raise ValueError(str(error)) from None

    def check(value: Any) -> Any:
        converted = convert(value)
        inner = converted.get("value")
        if isinstance(value, dict) and inner is not None:
            converted = {**value, **convert(inner)}
        return converted

    return BeforeValidator(check)


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourcedValue(Strict):
    """A figure with its own source; without one, its table's source holds."""

    value: float
    source: str = ""
    retrieved: str = ""
    provenance: Provenance | None = None


Bytes = Annotated[SourcedValue, _quantity("bytes")]
Bandwidth = Annotated[SourcedValue, _quantity("bandwidth")]
FlopRate = Annotated[SourcedValue, _quantity("flop_rate")]
Time = Annotated[SourcedValue, _quantity("time")]
Power = Annotated[SourcedValue, _quantity("power")]
Money = Annotated[SourcedValue, _quantity("money")]
PricePerHour = Annotated[SourcedValue, _quantity("price_per_hour")]
Count = Annotated[SourcedValue, _quantity("count")]
Ratio = Annotated[SourcedValue, _quantity("ratio")]


class Table(Strict):
    """A table whose figures share a source unless they name their own."""

    source: str = ""
    retrieved: str = ""
    provenance: Provenance = "datasheet"

    @field_validator("retrieved")
    @classmethod
    def _is_date(cls, value: str) -> str:
        if value:
            date.fromisoformat(value if len(value) == 10 else f"{value}-01"[:10])
        return value


class Compute(Table):
    """Dense peak rates; a type that is absent is not native."""

    fp32: FlopRate | None = None
    tf32: FlopRate | None = None
    bf16: FlopRate | None = None
    fp8: FlopRate | None = None
    int8: FlopRate | None = None
    fp4: FlopRate | None = None
    compute_units: Count
    structured_sparsity: Ratio = SourcedValue(value=1.0)


class Memory(Table):
    """Main memory and what is on the chip."""

    capacity: Bytes
    bandwidth: Bandwidth
    onchip: Bytes


class LinkTable(Table):
    """A network: accelerators it joins, bandwidth per accelerator and direction, latency, and how
    far machines lie apart (standard deviation of the log of a collective's time).
    """

    domain_size: Count
    bandwidth: Bandwidth
    latency: Time
    machine_spread: Ratio = SourcedValue(value=0.0)


class Host(Table):
    """Path to host memory and its size per accelerator."""

    bandwidth: Bandwidth
    memory: Bytes


class PowerTable(Table):
    """Power of the accelerator and of its share of the server."""

    tdp: Power
    idle: Power
    server: Power = SourcedValue(value=0.0)


class Purchase(Table):
    """Prices to buy; 0 where it is not sold."""

    accelerator: Money = SourcedValue(value=0.0)
    server_share: Money = SourcedValue(value=0.0)


class PriceRow(Strict):
    """Rent of one accelerator for an hour."""

    kind: Literal["on_demand", "spot", "reserved_1y", "reserved_3y", "owned"]
    price: PricePerHour
    date: str
    source: str = Field(min_length=3)
    provider: str = ""
    region: str = ""
    provenance: Provenance = "published"


class Profile(Strict):
    """A whole profile."""

    title: str
    vendor: str
    kind: Literal["gpu", "tpu", "asic", "cpu"]
    released: str = ""
    calibration: str = ""
    borrowed_calibration: str = ""
    extends: str = ""
    compute: Compute
    memory: Memory
    scale_up: LinkTable
    scale_out: LinkTable
    host: Host
    power: PowerTable
    purchase: Purchase = Purchase()
    prices: tuple[PriceRow, ...] = ()
