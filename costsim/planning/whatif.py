"""What-if: vary any field of hardware, model, layout, engine, request or price."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from costsim.economics.prices import Rent, rent
from costsim.engine.deployment import Deployment
from costsim.errors import InputError
from costsim.planning.estimate import Estimate, estimate_deployment
from costsim.planning.fields import Variation, apply, parse_variation

__all__ = ["Outcome", "Variation", "WhatIf", "apply", "parse_variation", "whatif"]

@dataclass(frozen=True)
class Outcome:
    """One point of a what-if: the value, its label, and the estimate or why there is none."""

    value: float | str
    label: str
    estimate: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class WhatIf:
    """A what-if's outcomes, and the point it started from."""

    variation: Variation
    base: Estimate
    outcomes: tuple[Outcome, ...]

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {
            "vary": self.variation.text, "field": f"{self.variation.part}.{self.variation.field}",
            "base": self.base.as_dict(),
            "points": [{"value": o.value, "label": o.label, "reason": o.reason,
                        "estimate": o.estimate.as_dict() if o.estimate else None}
                       for o in self.outcomes],
        }


def whatif(
    deployment: Deployment, variation: Variation | str, *, batch: int, isl: float, osl: float,
    price: str = "on_demand",
) -> WhatIf:
    """Return estimates along the values of one field.

    Args:
        deployment: the point it starts from.
        variation: from `parse_variation`, or its text.
        batch, isl, osl, price: as in `estimate`.
    """
    if isinstance(variation, str):
        variation = parse_variation(variation)
    base = estimate_deployment(deployment, batch=batch, isl=isl, osl=osl, price=price)
    request = {"batch": float(batch), "isl": float(isl), "osl": float(osl)}
    outcomes = [_outcome(deployment, variation, value, request, price)
                for value in variation.values]
    return WhatIf(variation, base, tuple(outcomes))


def _outcome(
    deployment: Deployment, v: Variation, value: Any, request: dict[str, float], price: str
) -> Outcome:
    wanted = dict(request)
    label = value if isinstance(value, str) else f"{value:g}{'x' if v.relative else ''}"
    changed, rented = deployment, None
    try:
        if v.part == "request":
            wanted[v.field] = wanted[v.field] * value if v.relative else value
        elif v.field == "price":
            rented = _rent(rent(deployment.hardware, price), v, float(value))
        else:
            changed = apply(deployment, v, value)
        estimate = estimate_deployment(changed, batch=int(wanted["batch"]), isl=wanted["isl"],
                                       osl=wanted["osl"], price=price, rented=rented)
    except InputError as error:
        return Outcome(value, label, None, str(error))
    return Outcome(value, label, estimate)


def _rent(now: Rent, v: Variation, value: float) -> Rent:
    """Return a rent with its whole range multiplied, or one known exactly.

    It is the range of all quotes that changes, those of the profile and those of the price table.
    """
    if v.relative:
        return replace(now, low=now.low * value, central=now.central * value,
                       high=now.high * value)
    return replace(now, low=value, central=value, high=value)
