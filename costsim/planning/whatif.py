"""What-if: vary any field of hardware, model, layout, engine, request or price."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.economics.prices import Rent, rent
from costsim.engine.deployment import Deployment
from costsim.errors import InputError, unknown_name
from costsim.models.architecture import Model
from costsim.planning.estimate import Estimate, estimate_deployment
from costsim.units import UNITS, parse_quantity

DEFAULT_STEPS = 9

# Friendly name -> field, by part.
ALIASES: dict[str, dict[str, str]] = {
    "hardware": {
        "hbm_bandwidth": "memory_bandwidth_bytes_per_s",
        "memory_bandwidth": "memory_bandwidth_bytes_per_s", "memory": "memory_bytes",
        "hbm": "memory_bytes", "tdp": "tdp_w", "idle": "idle_w", "list_price": "list_price_usd",
        "sms": "compute_units",
    },
    "model": {"context": "max_context"},
    "engine": {"chunk": "max_num_batched_tokens", "prefix_hit": "prefix_hit_share"},
}
# Fields that are no plain attribute.
SPECIAL = {
    "hardware": ("peak", "scale_up_bandwidth", "scale_up_latency", "scale_up_domain",
                 "scale_out_bandwidth", "price"),
    "model": ("experts", "top_k", "layers", "ffn_width", "kv_heads"),
    "layout": ("tp", "pp", "ep", "dp", "cp"),
    "precision": ("weights", "kv"),
}
REQUEST = ("batch", "isl", "osl")
_DIMENSION = {
    "memory_bandwidth_bytes_per_s": "bandwidth", "memory_bytes": "bytes",
    "onchip_memory_bytes": "bytes", "tdp_w": "power", "idle_w": "power",
    "scale_up_bandwidth": "bandwidth", "scale_out_bandwidth": "bandwidth",
    "scale_up_latency": "time", "peak": "flop_rate", "price": "price_per_hour",
    "host_step_s": "time", "host_request_s": "time", "list_price_usd": "money",
    "reserve_bytes": "bytes",
}


@dataclass(frozen=True)
class Variation:
    """One field with the values it takes.

    Args:
        part: ``hardware``, ``model``, ``layout``, ``engine``, ``precision`` or ``request``.
        field: name of the field.
        values: absolute values, or factors where ``relative``.
        relative: whether values multiply the present one.
        text: as the user wrote it.
    """

    part: str
    field: str
    values: tuple[Any, ...]
    relative: bool
    text: str


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


def parse_variation(text: str) -> Variation:
    """Return a variation from text such as ``hardware.hbm_bandwidth=0.5x..2x`` or ``tp=1,2,4``.

    Ranges are ``low..high`` or ``low..high:steps``; a trailing ``x`` on the numbers multiplies the
    present value; a list has commas.

    Raises:
        InputError: the field is unknown or a value is wrong.
    """
    name, equals, body = text.partition("=")
    if not equals or not body.strip():
        raise InputError(f"--vary {text}: must look like field=low..high or field=a,b,c; for "
                         "example hardware.hbm_bandwidth=0.5x..2x")
    part, field = _field(name.strip(), text)
    values, relative = _values(body.strip(), field, text)
    numbers = [v for v in values if not isinstance(v, str)]
    if any(v < 0 for v in numbers) or (field == "price" and not all(numbers)):
        raise InputError(f"--vary {text}: {name.strip()} must be positive")
    return Variation(part, field, values, relative, text)


def _known() -> dict[str, list[str]]:
    from costsim.engine.settings import EngineSettings
    from costsim.hardware.accelerator import Hardware

    numeric = [f.name for f in dataclasses.fields(Hardware) if f.type == "Number"]
    engine = [f.name for f in dataclasses.fields(EngineSettings)
              if f.type in ("float", "int", "bool")]
    return {
        "hardware": [*numeric, *ALIASES["hardware"], *SPECIAL["hardware"]],
        "model": [*SPECIAL["model"]], "layout": [*SPECIAL["layout"]],
        "engine": [*engine, *ALIASES["engine"]], "precision": [*SPECIAL["precision"]],
        "request": [*REQUEST],
    }


def _field(name: str, text: str) -> tuple[str, str]:
    known = _known()
    part, dot, field = name.partition(".")
    if not dot:
        owners = [p for p, fields in known.items() if name in fields]
        part, field = (owners[0] if owners else ""), name
    if part not in known or field not in known[part]:
        every = [f"{p}.{f}" if p != "request" else f for p, fields in known.items()
                 for f in fields]
        raise InputError(f"--vary {text}: {unknown_name('field', name, every)}")
    return part, ALIASES.get(part, {}).get(field, field)


_RANGE = re.compile(r"^(?P<low>.+?)\.\.(?P<high>.+?)(?::(?P<steps>\d+))?$")


def _values(body: str, field: str, text: str) -> tuple[tuple[Any, ...], bool]:
    found = _RANGE.match(body)
    if not found:
        items = [item.strip() for item in body.split(",") if item.strip()]
        relative = all(_is_factor(item) for item in items)
        return tuple(_number(i, field, text, relative) for i in items), relative
    low, high = found["low"].strip(), found["high"].strip()
    relative = _is_factor(low) and _is_factor(high)
    first, last = (_number(v, field, text, relative) for v in (low, high))
    if isinstance(first, str) or isinstance(last, str):
        raise InputError(f"--vary {text}: a range needs numbers")
    if not 0 < first < last:
        raise InputError(f"--vary {text}: a range must rise from a positive number")
    steps = int(found["steps"] or DEFAULT_STEPS)
    if not 2 <= steps <= 200:
        raise InputError(f"--vary {text}: steps must be 2 to 200")
    points = [float(v) for v in np.geomspace(first, last, steps)]
    if field in (*SPECIAL["layout"], *SPECIAL["model"], "batch", "isl", "osl"):
        points = [float(v) for v in dict.fromkeys(round(p) for p in points)]
    return tuple(points), relative


def _is_factor(item: str) -> bool:
    return bool(re.fullmatch(r"[\d.]+(?:e[+-]?\d+)?x", item))


def _number(item: str, field: str, text: str, relative: bool) -> float | str:
    if field in SPECIAL["precision"]:
        from costsim.dtypes import bytes_per_element

        bytes_per_element(item)
        return item
    if relative:
        return float(item[:-1])
    if item.lower() in ("true", "false"):
        return float(item.lower() == "true")
    dimension = _DIMENSION.get(field, "count")
    try:
        number = parse_quantity(item, dimension if dimension in UNITS else "count")
    except InputError as error:
        raise InputError(f"--vary {text}: {error}") from None
    if math.isnan(number):
        raise InputError(f"--vary {text}: '{item}' is not a number")
    return number


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


def apply(deployment: Deployment, v: Variation, value: Any) -> Deployment:
    """Return a deployment with one field set to a value (or multiplied by it)."""
    if v.part == "hardware":
        return deployment.with_changes(hardware=_hardware(deployment, v, value))
    if v.part == "model":
        return deployment.with_changes(model=_model(deployment.model, v.field, value, v.relative))
    if v.part == "layout":
        now = getattr(deployment.layout, v.field)
        new = round(now * value if v.relative else value)
        return deployment.with_changes(layout=replace(deployment.layout, **{v.field: new}))
    if v.part == "precision":
        return deployment.with_changes(precision=_precision(deployment, v.field, str(value)))
    now = getattr(deployment.settings, v.field)
    new_value = now * value if v.relative else value
    if isinstance(now, bool):
        new_value = bool(new_value)
    elif isinstance(now, int):
        new_value = round(new_value)
    return deployment.with_changes(settings=replace(deployment.settings, **{v.field: new_value}))


def _precision(deployment: Deployment, field: str, dtype: str) -> Any:
    from costsim.engine.precision import Precision

    if field == "kv":
        return replace(deployment.precision, kv=dtype)
    activation = "bf16" if dtype == "int4" else ""
    return Precision.uniform(dtype, activation, kv=deployment.precision.kv)


def _hardware(deployment: Deployment, v: Variation, value: Any) -> Any:
    h = deployment.hardware
    if v.field == "peak":
        rates = {k: (r * value if v.relative else value) for k, r in h.peak_flop_per_s.items()}
        return h.with_fields(peak_flop_per_s=rates)
    if v.field.startswith("scale_"):
        which, _, key = v.field.rpartition("_")
        name = {"bandwidth": "bandwidth_bytes_per_s", "latency": "latency_s",
                "domain": "domain_size"}[key]
        link = getattr(h, which)
        now = getattr(link, name)
        return h.with_fields(**{which: replace(link, **{name: now * value if v.relative
                                                        else value})})
    now = getattr(h, v.field)
    return h.with_fields(**{v.field: now * value if v.relative else value})


def _model(model: Model, field: str, value: Any, relative: bool) -> Model:
    if field == "experts":
        from costsim.models.variants import moe_variant

        ffn = next((x.ffn for x in model.layers if x.ffn and x.ffn.kind == "moe"), None)
        top_k = ffn.top_k if ffn else 2
        now = ffn.experts if ffn else 1
        experts = round(now * value if relative else value)
        return moe_variant(model, experts=experts, top_k=min(top_k, experts), keep="active")
    layers = []
    for each in model.layers:
        layers.append(_layer(each, field, value, relative))
    return replace(model, layers=tuple(layers))


def _layer(each: Any, field: str, value: Any, relative: bool) -> Any:
    def new(now: int) -> int:
        return max(1, round(now * value if relative else value))

    if field == "layers":
        return replace(each, count=new(each.count))
    if field == "kv_heads" and each.mixer is not None and hasattr(each.mixer, "kv_heads"):
        return replace(each, mixer=replace(each.mixer, kv_heads=new(each.mixer.kv_heads)))
    if field == "ffn_width" and each.ffn is not None:
        return replace(each, ffn=replace(each.ffn, width=new(each.ffn.width)))
    if field == "top_k" and each.ffn is not None and each.ffn.kind == "moe":
        return replace(each, ffn=replace(each.ffn, top_k=new(each.ffn.top_k)))
    return each


def varied_values(found: WhatIf) -> tuple[Sequence[Any], Sequence[Estimate]]:
    """Return the values that have an estimate, and the estimates."""
    good = [o for o in found.outcomes if o.estimate is not None]
    return [o.value for o in good], [o.estimate for o in good if o.estimate is not None]
