"""One operating point with its money: latencies, throughput, $ per query and per token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.economics.prices import Rent, rent
from costsim.economics.query import token_price
from costsim.engine.deployment import Deployment, deploy
from costsim.engine.encoder import encode
from costsim.engine.layout import Layout
from costsim.engine.memory import check_fits
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import OperatingPoint, operating_point
from costsim.engine.validity import check_layout
from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model, is_moe
from costsim.models.loader import load_model
from costsim.models.multimodal import Images
from costsim.planning.fields import with_changes
from costsim.quantity import Quantity


@dataclass(frozen=True)
class Estimate:
    """What an operating point is predicted to do and to cost; every figure has its interval.

    Args:
        deployment: what runs.
        point: the steady state, scalars.
        rent: price of one accelerator.
        batch, isl, osl: requests in flight, tokens in and out.
        ttft_s, tpot_s, e2e_s: mean latencies.
        requests_per_s, output_tokens_per_s_per_accelerator: throughput.
        usd_per_query, usd_per_million_tokens: all cost on the query, on input and output tokens.
        usd_per_million_input_tokens, usd_per_million_output_tokens: split by time.
        bottleneck: what limits the accelerator.
        provenance: of model, hardware and calibration.
    """

    deployment: Deployment
    point: OperatingPoint
    rent: Rent
    batch: int
    isl: float
    osl: float
    ttft_s: Quantity
    tpot_s: Quantity
    e2e_s: Quantity
    requests_per_s: Quantity
    output_tokens_per_s_per_accelerator: Quantity
    usd_per_query: Quantity
    usd_per_million_tokens: Quantity
    usd_per_million_input_tokens: Quantity
    usd_per_million_output_tokens: Quantity
    bottleneck: str
    provenance: str

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        d = self.deployment
        quantities = {k: v.as_dict() for k, v in vars(self).items() if isinstance(v, Quantity)}
        return {
            "model": d.model.name, "model_provenance": d.model.provenance,
            "hardware": d.hardware.name, "accelerators": int(d.accelerators),
            "layout": str(d.layout), "engine": d.settings.name, "batch": self.batch,
            "isl": self.isl, "osl": self.osl, "price": self.rent.note,
            "usd_per_accelerator_hour": list(self.rent), "bottleneck": self.bottleneck,
            "max_batch": float(self.point.max_batch), "fits": bool(self.point.fits),
            "mfu": float(self.point.mfu), "mbu": float(self.point.mbu),
            "provenance": self.provenance, **quantities,
            "decode_step_by_operator_s": _floats(self.point.decode.by_operator),
            "decode_step_by_resource_s": _floats(self.point.decode.by_resource),
        }


def _floats(parts: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in parts.items()}


def estimate(
    model: Model | str,
    hardware: Hardware | str,
    layout: Layout | None = None,
    *,
    batch: int,
    isl: float,
    osl: float,
    precision: Precision | str | None = None,
    engine: EngineSettings | str = "vllm",
    price: str = "on_demand",
    changes: Sequence[str] = (),
    images: Images | None = None,
    audio_s: float = 0.0,
) -> Estimate:
    """Return what a deployment does and costs at ``batch`` requests in flight.

    Args:
        model, hardware: objects or names.
        layout: None: the fewest accelerators that hold the model and the batch.
        batch: requests in flight in one replica.
        isl, osl: tokens in and out of a request.
        precision: object, data type of all weights, or None: as the checkpoint is.
        engine: preset name or settings.
        price: term of the rent.
        changes: fields to set, such as ``engine.prefix_hit=0.4`` (`costsim.planning.fields`).
        images, audio_s: that come with each prompt; their tokens are added to ``isl``.

    Raises:
        InputError: a name is unknown, a number is wrong, or the model does not fit.
    """
    deployment = make_deployment(model, hardware, layout, precision=precision, engine=engine,
                                 batch=batch, context=isl + osl, changes=changes)
    encoded = encode(deployment, images, audio_s)
    return estimate_deployment(deployment, batch=batch, isl=isl + encoded.prompt_tokens, osl=osl,
                               price=price, encoder_s=float(encoded.step.seconds))


def estimate_deployment(
    deployment: Deployment, *, batch: int, isl: float, osl: float, price: str = "on_demand",
    rented: Rent | None = None, encoder_s: float = 0.0,
) -> Estimate:
    """Return the estimate of a deployment that exists; arguments as in `estimate`.

    Args:
        rented: price of one accelerator, in place of the one that ``price`` names.
        encoder_s: of a request's images and audio.
    """
    _check_request(deployment, isl, osl)
    check_layout(deployment.model, deployment.layout)
    check_fits(deployment, int(isl + osl))
    point = operating_point(deployment, batch, isl, osl, encoder_s)
    if not bool(point.fits):
        raise InputError(
            f"batch = {batch}: {deployment.model.name} on {deployment.accelerators}x "
            f"{deployment.hardware.name} ({deployment.layout}) holds {int(point.max_batch)} "
            f"requests of {int(isl + osl)} tokens at once"
        )
    paid = rented or rent(deployment.hardware, price)
    return _assemble(deployment, point, paid, batch, isl, osl)


def _check_request(deployment: Deployment, isl: float, osl: float) -> None:
    longest = deployment.model.max_context
    if longest and isl + osl > longest:
        raise InputError(f"isl + osl = {isl + osl:g} tokens is longer than the context of "
                         f"{deployment.model.name} ({longest})")


def make_deployment(
    model: Model | str,
    hardware: Hardware | str,
    layout: Layout | None = None,
    *,
    precision: Precision | str | None = None,
    engine: EngineSettings | str = "vllm",
    batch: int = 1,
    context: float = 0,
    changes: Sequence[str] = (),
) -> Deployment:
    """Return a deployment from names or objects; arguments as in `estimate`."""
    if isinstance(model, str):
        model = load_model(model)
    if isinstance(hardware, str):
        hardware = load_hardware(hardware)
    settings = load_settings(engine) if isinstance(engine, str) else engine
    if isinstance(precision, str):
        precision = Precision.uniform(precision)
    base = with_changes(deploy(model, hardware, layout or Layout(), precision, settings), changes)
    given = layout is not None or base.layout.accelerators > 1
    return base if given else smallest_layout(base, batch, context)


def smallest_layout(deployment: Deployment, batch: int = 1, context: float = 0) -> Deployment:
    """Return the deployment on the fewest accelerators that hold ``batch`` requests.

    Tensor parallelism up to the scale-up domain, then pipeline stages; experts spread over all
    accelerators of a stage.

    Raises:
        DoesNotFitError: nothing up to 64 accelerators holds it.
    """
    from costsim.engine.memory import max_batch
    from costsim.engine.validity import allowed

    domain = int(np.max(deployment.hardware.scale_up.domain_size))
    last = deployment
    has_experts = is_moe(deployment.model)
    for count in (1, 2, 4, 8, 16, 32, 64):
        tp = min(count, 2 ** int(math.log2(max(domain, 1))))
        while tp >= 1:
            layout = replace(deployment.layout, tp=tp, pp=count // tp,
                             ep=tp if has_experts else 1)
            if bool(np.all(allowed(deployment.model, layout))):
                last = deployment.with_changes(layout=layout)
                if float(np.max(max_batch(last, max(context, 1)))) >= batch:
                    return last
                break
            tp //= 2
    check_fits(last, int(context))
    raise InputError(f"no layout of {deployment.model.name} on up to 64x "
                     f"{deployment.hardware.name} holds {batch} requests of {context:g} tokens")


def provenance_of(deployment: Deployment) -> str:
    """Return where the numbers come from, doubtful parts first."""
    parts = []
    if deployment.model.provenance != "published":
        parts.append(f"{deployment.model.provenance} model")
    if deployment.hardware.provenance not in ("datasheet", "measured"):
        parts.append(f"{deployment.hardware.provenance} hardware figures")
    return "; ".join([*parts, deployment.calibration.provenance])


def _assemble(
    deployment: Deployment, point: OperatingPoint, price: Rent, batch: int, isl: float, osl: float
) -> Estimate:
    source = provenance_of(deployment)
    usd_per_hour = float(price.central) * float(deployment.accelerators)
    money = token_price(usd_per_hour, point.requests_per_s, isl, osl, point.input_time_share)
    below, above = price.log_error
    slow = float(point.log_error_throughput)

    def time(value: Any, error: Any) -> Quantity:
        return Quantity(float(value), "s", float(error), float(error), provenance=source)

    def dollars(value: Any, unit: str) -> Quantity:
        # A price range and a throughput error are independent ratios: they add in quadrature.
        return Quantity(float(value), unit, math.hypot(slow, below), math.hypot(slow, above),
                        provenance=source)

    share = {name: float(s) for name, s in point.decode.by_resource.items()}
    per_token = float(point.tpot_s) / max(sum(share.values()), 1e-30)
    tpot = Quantity(float(point.tpot_s), "s", float(point.log_error_tpot),
                    float(point.log_error_tpot), {k: v * per_token for k, v in share.items()},
                    source)
    return Estimate(
        deployment=deployment, point=point, rent=price, batch=int(batch), isl=float(isl),
        osl=float(osl), ttft_s=time(point.ttft_s, point.log_error_ttft), tpot_s=tpot,
        e2e_s=time(point.e2e_s, point.log_error_tpot),
        requests_per_s=Quantity(float(point.requests_per_s), "/s", slow, slow, provenance=source),
        output_tokens_per_s_per_accelerator=Quantity(
            float(point.output_tokens_per_s_per_accelerator), "tokens/s", slow, slow,
            provenance=source),
        usd_per_query=dollars(money.usd_per_query, "$"),
        usd_per_million_tokens=dollars(money.usd_per_million_tokens, "$/1M tokens"),
        usd_per_million_input_tokens=dollars(money.usd_per_million_input_tokens, "$/1M tokens"),
        usd_per_million_output_tokens=dollars(money.usd_per_million_output_tokens, "$/1M tokens"),
        bottleneck=str(point.bottleneck), provenance=source,
    )
