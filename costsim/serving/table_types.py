"""Fields of the tables that users write: numbers in SI, or words with a unit such as "2 min"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator

from costsim.units import parse_quantity


def _in(dimension: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        return parse_quantity(value, dimension) if isinstance(value, str) else value

    return parse


Seconds = Annotated[float, BeforeValidator(_in("time"))]
BytesPerSecond = Annotated[float, BeforeValidator(_in("bandwidth"))]
Rate = Annotated[float, BeforeValidator(_in("rate"))]
