"""Time, memory and cost of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.economics.prices import rent
from costsim.errors import DoesNotFitError, InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.store import load_calibration
from costsim.models.architecture import Model
from costsim.models.flop import flop_per_token
from costsim.quantity import Quantity
from costsim.training.failures import useful_share
from costsim.training.memory import TrainingMemory, local_parameters, training_memory
from costsim.training.passes import (
    MicroBatch,
    Seconds,
    backward,
    micro_batch,
    recomputed,
    trained_layers,
)
from costsim.training.plan import TrainingPlan
from costsim.training.schedule import bubble_time
from costsim.training.traffic import LINK_EFFICIENCY, gradient_passes, stage_send_time

# Bytes of one Adam step per parameter: gradient, fp32 weight and two moments read, the last
# three and the 16-bit weight written.
OPTIMIZER_TRAFFIC_BYTES = 30.0
# Standard deviation of log(measured / predicted) over the families of runs of published layout;
# a searched layout is the fastest there is, so that real runs lie above it: root mean square of
# the same over the even half of the runs whose layout is not known (docs/training.md).
UNMODELLED_LOG_ERROR = 0.20
SEARCHED_LOG_ERROR = 0.53
USABLE_MEMORY = 0.94


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step; arrays where the plan's layout holds arrays.

    Args:
        parts: seconds by what they go to; they add up to ``seconds``.
        log_error: standard deviation of log(actual / predicted) of the kernels.
    """

    parts: Mapping[str, Any]
    log_error: Any

    @property
    def seconds(self) -> Any:
        """The whole step."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class TrainingEstimate:
    """A training run, predicted.

    Args:
        step: one optimiser step.
        days, gpu_hours: of the whole run, failures included.
        mfu: model FLOP per second over the dense peak rate, failures not counted. FLOP after
            Chowdhery et al. 2022, appendix B: attention counted without its causal mask.
        useful_share: of the time, what failures and checkpoints leave.
        memory: of the fullest accelerator.
        fits: whether that is below 94 % of its memory.
        accelerators: of the run.
        energy_kwh: at the accelerators' TDP and their share of the server, without PUE.
        plan: what was asked.
        provenance: of the kernels' times.
        usd: rent, None without prices.
        searched: the layout is the fastest found and not one that was given.
    """

    step: StepTime
    days: Any
    gpu_hours: Any
    mfu: Any
    useful_share: Any
    memory: TrainingMemory
    fits: Any
    accelerators: Any
    energy_kwh: Any
    plan: TrainingPlan
    provenance: str
    usd: Quantity | None = None
    searched: bool = False

    @property
    def hours(self) -> Quantity:
        """GPU-hours as a quantity with its interval."""
        below, above = time_log_errors(self.step.log_error, self.searched)
        return Quantity(float(self.gpu_hours), "GPU h", below, above, provenance=self.provenance)


def estimate_training(
    model: Model,
    hardware: Hardware,
    plan: TrainingPlan,
    *,
    price: str | tuple[float, float, float] = "",
    calibration: Calibration | None = None,
    require_fit: bool = False,
    searched: bool = False,
) -> TrainingEstimate:
    """Return time, memory and cost of a training run; MFU is predicted, not assumed.

    Args:
        model, hardware: what is trained, on what.
        plan: tokens, batch, layout; array fields of its layout broadcast (for a search).
        price: a term of the hardware's own prices (``"reserved_3y"``), or low, central and high
            $/h of one accelerator; ``""`` for no money.
        calibration: of the kernels; the hardware's own by default.
        require_fit: refuse plans that exceed the memory.
        searched: the plan is the best of a search, which widens the interval upwards.

    Raises:
        InputError: the layout does not divide the model or the batch.
        DoesNotFitError: with ``require_fit``.
    """
    check_layout(model, plan)
    calibration = calibration or load_calibration(hardware)
    step = step_time(model, hardware, plan, calibration)
    memory = training_memory(model, plan)
    fits = memory.total <= USABLE_MEMORY * np.asarray(hardware.memory_bytes, float)
    if require_fit and not np.any(fits):
        raise DoesNotFitError(
            f"{model.name} in {plan.layout}: {float(np.min(memory.total)) / 1e9:,.0f} GB needed on "
            f"one {hardware.name}, which has {float(np.max(hardware.memory_bytes)) / 1e9:,.0f} GB")
    accelerators = np.asarray(plan.layout.accelerators, float)
    share = useful_share(plan.failures, accelerators)
    seconds = plan.steps * step.seconds / share
    hours = seconds * accelerators / 3600.0
    power = np.asarray(hardware.tdp_w, float) + hardware.server_w_per_accelerator
    return TrainingEstimate(
        step=step, days=seconds / 86400.0, gpu_hours=hours,
        mfu=model_flop(model, plan) / (step.seconds * accelerators * hardware.peak("bf16")),
        useful_share=share, memory=memory, fits=fits, accelerators=accelerators,
        energy_kwh=hours * power / 1000.0, plan=plan, provenance=calibration.provenance,
        usd=_cost(hardware, hours, price, time_log_errors(step.log_error, searched)),
        searched=searched)


def model_flop(model: Model, plan: TrainingPlan) -> float:
    """Return the model FLOP of one optimiser step: three forward passes, mask not counted."""
    return 3.0 * float(flop_per_token(model, plan.sequence)) * plan.global_batch_tokens


def step_time(
    model: Model, hardware: Hardware, plan: TrainingPlan, calibration: Calibration
) -> StepTime:
    """Return the time of one optimiser step and its parts.

    The slowest stage works through all micro-batches and waits for the others (bubble); gradients
    and weights move between data-parallel ranks behind one micro-batch's passes where they can.
    """
    micro = micro_batch(model, hardware, calibration, plan)
    forward, back = _stage(model, micro, plan)
    send = stage_send_time(model, hardware, plan)
    many = np.asarray(plan.micro_batches, float)
    own = local_parameters(model, plan)
    parts = {name: many * (getattr(forward, name) + getattr(back, name))
             for name in ("gemm", "attention", "scores", "elementwise", "network")}
    parts["gradient accumulation"] = many * _accumulation_time(hardware, plan, own)
    parts["pipeline send"] = many * send
    parts["bubble"] = bubble_time(plan.schedule, plan.layout.pp, forward.total + 0.5 * send,
                                  back.total + 0.5 * send, plan.layout.virtual_stages)
    parts["data parallel"] = _exposed(hardware, plan, own, forward, back)
    parts["optimizer"] = _optimizer_time(hardware, plan, own)
    parts["unexplained"] = plan.unexplained * sum(parts.values())
    return StepTime(parts, micro.layers.log_error)


def _stage(model: Model, micro: MicroBatch, plan: TrainingPlan) -> tuple[Seconds, Seconds]:
    """Return forward and backward of one micro-batch on the slowest stage.

    Layers are dealt out whole. The last stage also holds head and loss; where a layer less there
    makes up for it, that is done.
    """
    layers = sum(each.count for each in trained_layers(model, plan))
    stages = np.asarray(plan.layout.pp, float)
    most, least = np.ceil(layers / stages) / layers, np.floor(layers / stages) / layers
    forward, ends = micro.layers, micro.ends
    back = _sum(backward(forward, plan), recomputed(micro, plan))
    ends_back = backward(ends, plan)
    middle = most * (forward.total + back.total)
    last = np.where(stages > 1, np.minimum(least, most), 1.0) * (forward.total + back.total)
    last = last + ends.total + ends_back.total
    full, rest = np.where(middle >= last, most, np.where(stages > 1, least, 1.0)), middle < last
    rest = rest.astype(float)
    return _overlapped(_sum(_scaled(forward, full), _scaled(ends, rest)),
                       _sum(_scaled(back, full), _scaled(ends_back, rest)), plan)


def _overlapped(forward: Seconds, back: Seconds, plan: TrainingPlan) -> tuple[Seconds, Seconds]:
    """Hide a share of the layers' messages behind the compute of both passes."""
    network = forward.network + back.network
    hidden = np.minimum(plan.overlap_model * network, forward.compute + back.compute)
    kept = 1.0 - hidden / np.maximum(network, 1e-30)
    return (replace(forward, network=forward.network * kept),
            replace(back, network=back.network * kept))


def _scaled(a: Seconds, factor: Any) -> Seconds:
    return Seconds(a.gemm * factor, a.attention * factor, a.scores * factor,
                   a.elementwise * factor, a.network * factor, a.flop * factor, a.log_error)


def _sum(a: Seconds, b: Seconds) -> Seconds:
    return Seconds(a.gemm + b.gemm, a.attention + b.attention, a.scores + b.scores,
                   a.elementwise + b.elementwise, a.network + b.network, a.flop + b.flop,
                   a.log_error)


def _exposed(
    hardware: Hardware, plan: TrainingPlan, own: Any, forward: Seconds, back: Seconds
) -> Any:
    reduce_s, gather_s = gradient_passes(hardware, plan, own)
    if plan.zero < 3:
        behind = (back.compute, forward.compute) if plan.overlap_data else (0.0, 0.0)
        return np.maximum(reduce_s - behind[0], 0.0) + np.maximum(gather_s - behind[1], 0.0)
    # Weights are gathered for every pass of every micro-batch, gradients reduced once for each.
    many = np.asarray(plan.micro_batches, float)
    behind = (back.compute, forward.compute) if plan.overlap_data else (0.0, 0.0)
    one = np.maximum(gather_s - behind[1], 0.0)
    return many * (one + np.maximum(reduce_s + gather_s - behind[0], 0.0))


def _accumulation_time(hardware: Hardware, plan: TrainingPlan, own: Any) -> Any:
    """Return the seconds a micro-batch takes to add its gradients to those held (read, written)."""
    moved = 2.0 * plan.gradient_bytes * (own.dense + own.experts)
    return moved / (np.asarray(hardware.memory_bandwidth_bytes_per_s, float) * LINK_EFFICIENCY)


def _optimizer_time(hardware: Hardware, plan: TrainingPlan, own: Any) -> Any:
    ranks = np.asarray(plan.layout.dp, float) * plan.layout.cp if plan.zero else 1.0
    expert_ranks = np.maximum(ranks / plan.layout.expert_groups, 1.0) if plan.zero else 1.0
    parameters = own.dense / ranks + own.experts / expert_ranks
    bandwidth = np.asarray(hardware.memory_bandwidth_bytes_per_s, float) * LINK_EFFICIENCY
    return OPTIMIZER_TRAFFIC_BYTES * parameters / bandwidth


def check_layout(model: Model, plan: TrainingPlan) -> None:
    """Refuse a layout that does not divide the model or the batch.

    Raises:
        InputError: one line that names the figures.
    """
    at = plan.layout
    heads = min((getattr(k.mixer, "heads", 0) or getattr(k.mixer, "value_heads", 0)
                 for k in model.layers if k.mixer is not None), default=0)
    layers = sum(k.count for k in model.layers)
    experts = max((k.ffn.experts for k in model.layers if k.ffn is not None), default=0)
    many = np.asarray(plan.micro_batches, float)
    ranks = np.asarray(at.tp, float) * at.dp
    checks = (
        (heads and np.all(heads % np.asarray(at.tp) != 0), f"tp = {at.tp} does not divide the "
         f"{heads} heads"),
        (np.all(np.asarray(at.pp) > layers), f"pp = {at.pp} is more than the {layers} layers"),
        (np.all(np.asarray(at.ep) > max(experts, 1)), f"ep = {at.ep} is more than the "
         f"{experts} experts"),
        (np.all(np.asarray(at.ep) > ranks), f"ep = {at.ep} is more than tp·dp = {ranks}"),
        (np.all(many < 1.0 - 1e-9), f"{at} leaves {np.max(many):.2f} micro-batches to each "
         "pipeline; a larger batch or less data parallelism is needed"),
    )
    for wrong, message in checks:
        if wrong:
            raise InputError(f"{model.name}: {message}")


def time_log_errors(kernels: Any, searched: bool) -> tuple[float, float]:
    """Return the standard deviations of log(actual / predicted) time, below and above.

    Args:
        kernels: that of the kernels' times.
        searched: the layout is the fastest found.
    """
    own = float(np.max(kernels))
    above = SEARCHED_LOG_ERROR if searched else UNMODELLED_LOG_ERROR
    return math.hypot(own, UNMODELLED_LOG_ERROR), math.hypot(own, above)


def _cost(
    hardware: Hardware, hours: Any, price: str | tuple[float, float, float],
    errors: tuple[float, float],
) -> Quantity | None:
    if not price or np.ndim(hours):
        return None
    low, central, high = price if isinstance(price, tuple) else _rent(hardware, price)
    if not 0 < low <= central <= high:
        raise InputError(f"price ({low}, {central}, {high}): low, central and high in $/h, "
                         "rising and above 0")
    below = math.hypot(errors[0], math.log(central / low) / 1.6448536)
    above = math.hypot(errors[1], math.log(high / central) / 1.6448536)
    return Quantity(float(hours) * central, "$", below, above, {"rent": float(hours) * central})


def _rent(hardware: Hardware, term: str) -> tuple[float, float, float]:
    found = rent(hardware, term)
    return float(found.low), float(found.central), float(found.high)
