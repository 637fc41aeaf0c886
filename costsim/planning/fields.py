"""Fields of a deployment by name: read from text, set to a value or multiplied by one."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.errors import InputError, unknown_name
from costsim.models.architecture import Model
from costsim.planning.engine_words import INSIDE, WORDS, set_engine_field
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
    "engine": {"chunk": "max_num_batched_tokens", "prefix_hit": "prefix_hit_share",
               "weight_offload": "weight_offload_share", "kv_offload": "kv_offload_share"},
}
# Fields that are no plain attribute.
SPECIAL = {
    "hardware": ("peak", "scale_up_bandwidth", "scale_up_latency", "scale_up_domain",
                 "scale_out_bandwidth", "price"),
    "model": ("experts", "top_k", "layers", "ffn_width", "kv_heads"),
    "layout": ("tp", "pp", "ep", "dp", "cp", "sequence_parallel"),
    "engine": (*WORDS, *INSIDE),
    "precision": ("weights", "kv", "attention", "ffn", "experts", "head", "activation",
                  "communication"),
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


def parse_variation(text: str, option: str = "--vary") -> Variation:
    """Return a variation from text such as ``hardware.hbm_bandwidth=0.5x..2x`` or ``tp=1,2,4``.

    Ranges are ``low..high`` or ``low..high:steps``; a trailing ``x`` on the numbers multiplies the
    present value; a list has commas.

    Args:
        text: field and values.
        option: that it was given with, for messages.

    Raises:
        InputError: the field is unknown or a value is wrong.
    """
    name, equals, body = text.partition("=")
    text = f"{option} {text}"
    if not equals or not body.strip():
        raise InputError(f"{text}: must look like field=low..high or field=a,b,c; for "
                         "example hardware.hbm_bandwidth=0.5x..2x")
    part, field = _field(name.strip(), text)
    values, relative = _values(body.strip(), field, text)
    numbers = [v for v in values if not isinstance(v, str)]
    if any(v < 0 for v in numbers) or (field == "price" and not all(numbers)):
        raise InputError(f"{text}: {name.strip()} must be positive")
    return Variation(part, field, values, relative, text.partition(" ")[2])


def parse_change(text: str) -> Variation:
    """Return the one value that a field is set to, from text such as ``engine.prefix_hit=0.4``.

    Raises:
        InputError: the field is unknown, the value is wrong, or there are several.
    """
    found = parse_variation(text, "--set")
    if len(found.values) != 1 or found.part == "request" or found.field == "price":
        what = "one value" if len(found.values) != 1 else "a field of the deployment"
        raise InputError(f"--set {text}: takes {what}, such as engine.prefix_hit=0.4")
    return found


def with_changes(deployment: Deployment, changes: Sequence[str]) -> Deployment:
    """Return a deployment with fields set, each by a text as in `parse_change`."""
    for text in changes:
        found = parse_change(text)
        try:
            deployment = apply(deployment, found, found.values[0])
        except InputError as error:
            raise InputError(f"--set {text}: {error}") from None
    _check_features(deployment)
    return deployment


def _check_features(deployment: Deployment) -> None:
    """Refuse features that lack their other half."""
    settings = deployment.settings
    if bool(settings.lora_rank) != bool(settings.lora_adapters):
        raise InputError("adapters need engine.lora_rank and engine.lora_adapters, both above 0")


def _known() -> dict[str, list[str]]:
    from costsim.engine.settings import EngineSettings
    from costsim.hardware.accelerator import Hardware

    numeric = [f.name for f in dataclasses.fields(Hardware) if f.type == "Number"]
    engine = [f.name for f in dataclasses.fields(EngineSettings)
              if f.type in ("float", "int", "bool")]
    return {
        "hardware": [*numeric, *ALIASES["hardware"], *SPECIAL["hardware"]],
        "model": [*SPECIAL["model"]], "layout": [*SPECIAL["layout"]],
        "engine": [*engine, *ALIASES["engine"], *SPECIAL["engine"]],
        "precision": [*SPECIAL["precision"]], "request": [*REQUEST],
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
        raise InputError(f"{text}: {unknown_name('field', name, every)}")
    return part, ALIASES.get(part, {}).get(field, field)


_RANGE = re.compile(r"^(?P<low>.+?)\.\.(?P<high>.+?)(?::(?P<steps>\d+))?$")


def _values(body: str, field: str, text: str) -> tuple[tuple[Any, ...], bool]:
    found = _RANGE.match(body)
    if not found:
        items = [item.strip() for item in body.split(",") if item.strip()]
        if field in WORDS:
            return tuple(items), False
        relative = all(_is_factor(item) for item in items)
        return tuple(_number(i, field, text, relative) for i in items), relative
    low, high = found["low"].strip(), found["high"].strip()
    relative = _is_factor(low) and _is_factor(high)
    first, last = (_number(v, field, text, relative) for v in (low, high))
    if isinstance(first, str) or isinstance(last, str):
        raise InputError(f"{text}: a range needs numbers")
    if not 0 < first < last:
        raise InputError(f"{text}: a range must rise from a positive number")
    steps = int(found["steps"] or DEFAULT_STEPS)
    if not 2 <= steps <= 200:
        raise InputError(f"{text}: steps must be 2 to 200")
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
        raise InputError(f"{text}: {error}") from None
    if math.isnan(number):
        raise InputError(f"{text}: '{item}' is not a number")
    return number


def apply(deployment: Deployment, v: Variation, value: Any) -> Deployment:
    """Return a deployment with one field set to a value (or multiplied by it)."""
    if v.part == "hardware":
        return deployment.with_changes(hardware=_hardware(deployment, v, value))
    if v.part == "model":
        return deployment.with_changes(model=_model(deployment.model, v.field, value, v.relative))
    if v.part == "layout":
        now = getattr(deployment.layout, v.field)
        new = round(now * value if v.relative else value)
        changes: dict[str, Any] = {v.field: bool(new) if isinstance(now, bool) else new}
        return deployment.with_changes(layout=replace(deployment.layout, **changes))
    if v.part == "precision":
        return deployment.with_changes(precision=_precision(deployment, v.field, str(value)))
    experts = max((k.ffn.experts for k in deployment.model.layers if k.ffn), default=0)
    settings = set_engine_field(deployment.settings, v.field, value, v.relative, experts)
    return deployment.with_changes(settings=settings)


def _precision(deployment: Deployment, field: str, dtype: str) -> Any:
    from costsim.engine.precision import Precision

    if field != "weights":
        return replace(deployment.precision, **{field: dtype})
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
