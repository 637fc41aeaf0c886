"""What the studies of a scenario file may hold (pydantic)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from costsim.errors import InputError
from costsim.units import parse_quantity


def quantity(dimension: str) -> BeforeValidator:
    """Return a validator that reads quantities with units."""

    def convert(value: Any) -> Any:
        try:
            return parse_quantity(value, dimension)
        except InputError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(convert)


Time = Annotated[float, quantity("time"), Field(gt=0)]
Count = Annotated[float, quantity("count"), Field(gt=0)]
Shape = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=24, max_length=24)]


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyRow(Strict):
    """What every study has."""

    title: str
    source: str = ""


class Combinations(StudyRow):
    """Every model on every accelerator at several TPOT targets, against one of them."""

    kind: Literal["combinations"]
    model: str
    hardware: str
    workload: str
    tpot: list[Time] = Field(min_length=1)
    before: str
    after: str


class Fleet(StudyRow):
    """The fleet for a day of requests, through the planner, for each model."""

    kind: Literal["fleet"]
    workload: str
    shape: Shape
    models: list[str] = []
    shape_source: str


class Zone(Strict):
    """A time zone: its share of the seats and its offset from UTC in hours."""

    name: str
    share: float = Field(gt=0, le=1)
    utc_offset: int = Field(ge=-12, le=14)


class Seats(StudyRow):
    """Seats of an assistant over time zones: a licensed model, an own one, a public API."""

    kind: Literal["seats"]
    workload: str
    licensed: str
    own: str
    own_share: list[Annotated[float, Field(ge=0, le=1)]]
    zones: list[Zone] = Field(min_length=1)
    shape: Shape
    shape_source: str
    weekend: float = Field(default=0.05, ge=0, le=1)
    seat_usd_per_month: float = Field(gt=0)
    api: str


class QualityPair(Strict):
    """A dense and a sparse model that are compared in quality."""

    dense: str
    sparse: str


class Quality(StudyRow):
    """What the published laws say of the quality of sparse models, far beyond their runs."""

    kind: Literal["quality"]
    tokens: Count
    pairs: list[QualityPair] = Field(min_length=1)
    laws: list[str] = Field(min_length=1)


class Breakers(StudyRow):
    """What takes the gain of sparsity away: skew, small batches, expert-parallel scale."""

    kind: Literal["breakers"]
    base: str
    models: list[str] = Field(min_length=1)
    hardware: str
    workload: str
    routing_alpha: list[float] = []
    batches: list[int] = []
    ep: list[int] = []


class TrainingStudy(StudyRow):
    """What training each model costs."""

    kind: Literal["training"]
    models: list[str] = Field(min_length=1)
    tokens: Count
    hardware: str
    accelerators: int = Field(ge=1)
    batch_tokens: Count = 4_194_304.0
    sequence: int = Field(default=2048, ge=1)
    price: str = "on_demand"


class Hosting(StudyRow):
    """API prices by date against hosting the same model: share of the load at which it pays."""

    kind: Literal["hosting"]
    workload: str


class Increments(StudyRow):
    """What each workload costs over the first, such as images over text."""

    kind: Literal["increments"]
    unit: str


class SparseKernels(StudyRow):
    """Block-sparse products measured by the kernel layer, and what pruning costs in quality."""

    kind: Literal["sparse_kernels"]


AnyStudy = Annotated[
    Combinations | Fleet | Seats | Quality | Breakers | TrainingStudy | Hosting | Increments
    | SparseKernels, Field(discriminator="kind")]
