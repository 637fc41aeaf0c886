"""Why an operating point, or a measured result, is where it is, and what would change it most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.settings import EngineSettings
from costsim.engine.speculation import decode_steps
from costsim.engine.steady_state import OperatingPoint, main_rate, operating_point
from costsim.engine.step import StepTime, step_time
from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.models.architecture import Attention, Layers, Model

# Step of the central differences that elasticities are taken from.
_CHANGE = 0.05
_BALANCED = "balanced"


@dataclass(frozen=True)
class Explanation:
    """What one replica's time per output token is made of.

    Args:
        point: the operating point.
        seconds_per_token: of the replica, measured where a measurement was given.
        predicted_s: predicted seconds per output token.
        limit_s: the same on a machine at its peak rate and bandwidth with nothing else to do.
        distance: seconds_per_token over limit_s.
        mfu, mbu: of the result that is explained.
        parts: seconds per token by cause; they add up to ``seconds_per_token``:
            ``machine limit``, ``kernel efficiency``, ``communication``, ``host``, ``imbalance``
            (experts' slowest rank), ``idle`` (fewer requests than pipeline stages, or requests
            that are still in front of the engine) and ``unexplained`` (measured minus predicted).
        elasticities: change of predicted accelerator seconds per query in per cent for one per
            cent of a field of hardware, model, engine or load, the strongest first; at a fixed
            price per hour that is the change of $ per query.
        log_error: of the predicted figure.
        within_interval: whether a measured figure lies in the prediction's 90 % interval.
    """

    point: OperatingPoint
    seconds_per_token: float
    predicted_s: float
    limit_s: float
    distance: float
    mfu: float
    mbu: float
    parts: Mapping[str, float]
    elasticities: Mapping[str, float]
    log_error: float
    within_interval: bool | None = None


def explain(
    deployment: Deployment,
    batch: float,
    isl: float,
    osl: float,
    measured_output_tokens_per_s: float | None = None,
) -> Explanation:
    """Return what an operating point, or a measured throughput there, is made of.

    Args:
        deployment: with plain numbers.
        batch: requests in flight in the replica.
        isl, osl: prompt and output tokens of a request.
        measured_output_tokens_per_s: of the replica; None: explain the prediction.

    Raises:
        InputError: a number is not positive.
    """
    point = operating_point(deployment, batch, isl, osl)
    predicted = 1.0 / float(point.output_tokens_per_s)
    actual, factor = predicted, 1.0
    if measured_output_tokens_per_s is not None:
        if not measured_output_tokens_per_s > 0 or not np.isfinite(measured_output_tokens_per_s):
            raise InputError(f"measured tokens per second = {measured_output_tokens_per_s}: must "
                             "be a positive number")
        actual = 1.0 / measured_output_tokens_per_s
        factor = predicted / actual
    parts = _parts(deployment, point, predicted)
    parts["unexplained"] = actual - predicted
    error = float(point.log_error_throughput)
    return Explanation(
        point=point, seconds_per_token=actual, predicted_s=predicted,
        limit_s=parts["machine limit"], distance=actual / parts["machine limit"],
        mfu=float(point.mfu) * factor, mbu=float(point.mbu) * factor, parts=parts,
        elasticities=elasticities(deployment, batch, isl, osl), log_error=error,
        within_interval=None if factor == 1.0 else bool(abs(np.log(factor)) <= 1.645 * error),
    )


def _parts(deployment: Deployment, point: OperatingPoint, total: float) -> dict[str, float]:
    """Return the predicted seconds per token by cause, decodes and prompts together."""
    stages = float(deployment.layout.pp)
    micro = max(float(point.batch) / stages, 1.0)
    context = float(point.isl) + 0.5 * float(point.osl)
    busy = max(float(point.decoding) / stages, 1.0)
    steps = float(decode_steps(deployment.settings, point.osl))
    # One request keeps a pipeline's engine busy for its share of the decode steps and its prompt.
    request_s = total * float(point.osl) * stages
    waiting_s = min(deployment.settings.frontend_s / micro, request_s)
    used_s = (request_s - waiting_s) * min(float(point.batch) / stages, 1.0)
    decode_s = min(steps * float(point.decode.seconds) / busy, used_s)
    decode = _shares(deployment, point.decode, decode_requests=micro, decode_context=context)
    new = float(point.isl) * (1.0 - deployment.settings.prefix_hit_share)
    chunk = min(new, float(deployment.settings.max_num_batched_tokens))
    prompt = _shares(deployment, point.prefill, prefill_requests=1, prefill_tokens=chunk)
    per_token = 1.0 / (float(point.osl) * stages)
    parts = {name: (decode[name] * decode_s + prompt[name] * (used_s - decode_s)) * per_token
             for name in decode}
    return {**parts, "idle": (request_s - used_s) * per_token}


def _shares(deployment: Deployment, step: StepTime, **shape: float) -> dict[str, float]:
    """Return the share of a step that each cause takes."""
    seconds, hardware = float(step.seconds), deployment.hardware
    routing = replace(deployment.settings.routing, kind=_BALANCED)
    even = deployment.with_changes(settings=replace(deployment.settings, routing=routing))
    as_is, balanced = (float(step_time(d, **shape).seconds) for d in (deployment, even))
    imbalance = max(1.0 - balanced / as_is, 0.0) if as_is > 0 else 0.0
    host = float(step.by_resource["host"]) / seconds
    network = float(step.by_resource["network"]) / seconds
    limit = max(float(step.flop) / float(np.asarray(hardware.peak(main_rate(deployment)))),
                float(step.memory_bytes) / float(hardware.memory_bandwidth_bytes_per_s))
    rest = max(1.0 - host - network - imbalance, 0.0)
    ideal = min(limit / seconds, rest)
    return {"machine limit": ideal, "kernel efficiency": rest - ideal, "communication": network,
            "host": host, "imbalance": 1.0 - host - network - rest}


HARDWARE_FIELDS: dict[str, Callable[[Hardware, Any], Hardware]] = {
    "hardware.peak_flop_per_s": lambda h, f: h.with_fields(
        peak_flop_per_s={k: v * f for k, v in h.peak_flop_per_s.items()}),
    "hardware.memory_bandwidth": lambda h, f: h.with_fields(
        memory_bandwidth_bytes_per_s=h.memory_bandwidth_bytes_per_s * f),
    "hardware.scale_up.bandwidth": lambda h, f: h.with_fields(
        scale_up=replace(h.scale_up,
                         bandwidth_bytes_per_s=h.scale_up.bandwidth_bytes_per_s * f)),
    "hardware.scale_out.bandwidth": lambda h, f: h.with_fields(
        scale_out=replace(h.scale_out,
                          bandwidth_bytes_per_s=h.scale_out.bandwidth_bytes_per_s * f)),
    "hardware.host_bandwidth": lambda h, f: h.with_fields(
        host_bandwidth_bytes_per_s=h.host_bandwidth_bytes_per_s * f),
}


def _each_layer(change: Callable[[Layers, float], Layers]) -> Callable[[Model, float], Model]:
    return lambda m, f: replace(m, layers=tuple(change(k, f) for k in m.layers))


def _mixer_field(name: str) -> Callable[[Layers, float], Layers]:
    def change(kind: Layers, factor: float) -> Layers:
        if not isinstance(kind.mixer, Attention):
            return kind
        changes: dict[str, Any] = {name: getattr(kind.mixer, name) * factor}
        return replace(kind, mixer=replace(kind.mixer, **changes))

    return change


def _ffn_field(name: str, routed: bool) -> Callable[[Layers, float], Layers]:
    def change(kind: Layers, factor: float) -> Layers:
        if kind.ffn is None or (kind.ffn.kind == "moe") != routed:
            return kind
        changes: dict[str, Any] = {name: getattr(kind.ffn, name) * factor}
        return replace(kind, ffn=replace(kind.ffn, **changes))

    return change


MODEL_FIELDS: dict[str, Callable[[Model, float], Model]] = {
    "model.layers": _each_layer(lambda k, f: replace(k, count=k.count * f)),  # type: ignore[arg-type]
    "model.ffn.width": _each_layer(_ffn_field("width", False)),
    "model.experts": _each_layer(_ffn_field("experts", True)),
    "model.top_k": _each_layer(_ffn_field("top_k", True)),
    "model.expert_width": _each_layer(_ffn_field("width", True)),
    "model.shared_width": _each_layer(_ffn_field("shared_width", True)),
    "model.kv_heads": _each_layer(_mixer_field("kv_heads")),
    "model.kv_lora_rank": _each_layer(_mixer_field("kv_lora_rank")),
    "model.vocab_size": lambda m, f: replace(m, vocab_size=m.vocab_size * f),  # type: ignore[arg-type]
}
SETTINGS_FIELDS = ("host_step_s", "host_request_s", "layer_gap_s")


def elasticities(
    deployment: Deployment, batch: float, isl: float, osl: float
) -> dict[str, float]:
    """Return d ln(accelerator seconds per query) / d ln(field) for hardware, model, load, engine.

    At a fixed price per hour these are the elasticities of $ per query too. Central differences
    of 5 %; fields without influence are left out.

    Args:
        deployment: with plain numbers.
        batch, isl, osl: the operating point; they are among the fields.
    """
    factors = np.array([1.0 - _CHANGE, 1.0 + _CHANGE])
    found: dict[str, float] = {}
    for name, change in HARDWARE_FIELDS.items():
        changed = deployment.with_changes(hardware=change(deployment.hardware, factors))
        found[name] = _slope(operating_point(changed, batch, isl, osl))
    for name, vary in MODEL_FIELDS.items():
        if _unchanged(deployment.model, vary):
            continue
        pair = [operating_point(deployment.with_changes(model=vary(deployment.model, f)), batch,
                                isl, osl).requests_per_s for f in factors]
        found[name] = _log_ratio(pair[0], pair[1])
    for name in SETTINGS_FIELDS:
        pair = [operating_point(_with_setting(deployment, name, f), batch, isl, osl)
                .requests_per_s for f in factors]
        found[f"engine.{name}"] = _log_ratio(pair[0], pair[1])
    found["load.batch"] = _slope(operating_point(deployment, batch * factors, isl, osl))
    found["load.isl"] = _slope(operating_point(deployment, batch, isl * factors, osl))
    found["load.osl"] = _slope(operating_point(deployment, batch, isl, osl * factors))
    strong = {k: v for k, v in found.items() if abs(v) >= 1e-4}
    return dict(sorted(strong.items(), key=lambda item: -abs(item[1])))


def _unchanged(model: Model, vary: Callable[[Model, float], Model]) -> bool:
    return vary(model, 2.0) == model


def _with_setting(deployment: Deployment, name: str, factor: float) -> Deployment:
    settings: EngineSettings = deployment.settings
    changes: dict[str, Any] = {name: getattr(settings, name) * factor}
    return deployment.with_changes(settings=replace(settings, **changes))


def _slope(point: OperatingPoint) -> float:
    rates = np.broadcast_to(point.requests_per_s, (2,))
    return _log_ratio(rates[0], rates[1])


def _log_ratio(low: Any, high: Any) -> float:
    """Return the elasticity of 1/rate from the rates at both ends."""
    return float(np.log(low / high) / np.log((1.0 + _CHANGE) / (1.0 - _CHANGE)))
