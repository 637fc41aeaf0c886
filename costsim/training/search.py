"""The fastest training layout that fits, over tensor, pipeline, data, expert parallelism."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from costsim.errors import DoesNotFitError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.store import load_calibration
from costsim.models.architecture import Attention, Model
from costsim.training.estimate import TrainingEstimate, estimate_training
from costsim.training.plan import RECOMPUTE, TrainingLayout, TrainingPlan

MICRO_BATCHES = (1, 2, 4, 8)
VIRTUAL_STAGES = (1, 2, 4, 8)


def candidate_layouts(
    model: Model, hardware: Hardware, accelerators: int, plan: TrainingPlan
) -> TrainingLayout:
    """Return all layouts worth trying as one layout of arrays.

    Tensor parallelism stays inside the scale-up domain and divides the heads; stages divide the
    layers as evenly as whole layers allow; the batch divides into micro-batches.

    Args:
        model, hardware: what is trained, on what.
        accelerators: of the run.
        plan: its batch, sequence and context parallelism.
    """
    layers = sum(kind.count for kind in model.layers)
    sequences = plan.global_batch_tokens / plan.sequence
    rows = [
        (tp, pp, dp, ep, mb, v)
        for tp, pp in product(_tensor(model, hardware), _divisors(accelerators))
        if pp <= layers and accelerators % (tp * pp * plan.layout.cp) == 0
        for dp in [accelerators // (tp * pp * plan.layout.cp)]
        for ep in _expert_ways(model, tp * dp)
        for mb, v in product(MICRO_BATCHES, VIRTUAL_STAGES)
        if _whole(sequences / (dp * mb)) and (v == 1 or (pp > 1 and pp * v <= layers))
    ]
    if not rows:
        raise DoesNotFitError(
            f"{model.name}: no layout of {accelerators} accelerators divides {sequences:g} "
            "sequences a step; change the number of accelerators or the batch")
    columns = np.asarray(rows, float).T
    names = ("tp", "pp", "dp", "ep", "micro_batch", "virtual_stages")
    return TrainingLayout(cp=plan.layout.cp, **dict(zip(names, columns, strict=True)))


def _whole(value: float) -> bool:
    return value >= 1 and abs(value - round(value)) < 1e-9


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, min(n, 256) + 1) if n % d == 0]


def _tensor(model: Model, hardware: Hardware) -> list[int]:
    heads = [k.mixer.heads for k in model.layers if isinstance(k.mixer, Attention)]
    domain = int(np.min(hardware.scale_up.domain_size))
    return [t for t in (1, 2, 4, 8, 16) if t <= domain and all(h % t == 0 for h in heads)]


def _expert_ways(model: Model, ranks: int) -> list[int]:
    experts = [k.ffn.experts for k in model.layers if k.ffn is not None and k.ffn.experts]
    if not experts:
        return [1]
    return [e for e in (1, 2, 4, 8, 16, 32, 64, 128) if e <= min(experts) and ranks % e == 0]


def search_layout(
    model: Model,
    hardware: Hardware,
    accelerators: int,
    plan: TrainingPlan,
    *,
    zero: tuple[int, ...] = (1, 3),
    recompute: tuple[str, ...] = RECOMPUTE,
    price: str | tuple[float, float, float] = "",
    calibration: Calibration | None = None,
) -> TrainingEstimate:
    """Return the fastest plan that fits in memory.

    Args:
        model, hardware: what is trained, on what.
        accelerators: of the run.
        plan: tokens, batch, sequence, data types; its layout (but cp), zero, recompute and
            schedule are searched.
        zero, recompute: values to try.
        price, calibration: as in `estimate_training`.

    Raises:
        DoesNotFitError: nothing fits.
    """
    calibration = calibration or load_calibration(hardware)
    layouts = candidate_layouts(model, hardware, accelerators, plan)
    best: tuple[float, TrainingPlan] | None = None
    least = np.inf
    for stage, again in product(zero, recompute):
        tried = plan.with_changes(layout=layouts, zero=stage, recompute=again,
                                  schedule="interleaved")
        found = estimate_training(model, hardware, tried, calibration=calibration)
        least = min(least, float(np.min(found.memory.total)))
        seconds = np.where(found.fits, np.broadcast_to(found.days, np.shape(found.fits)), np.inf)
        at = int(np.argmin(seconds))
        if np.isfinite(seconds[at]) and (best is None or seconds[at] < best[0]):
            best = (float(seconds[at]), tried.with_changes(layout=_taken(layouts, at)))
    if best is None:
        raise DoesNotFitError(
            f"{model.name} on {accelerators} {hardware.name}: the smallest of the layouts tried "
            f"needs {least / 1e9:,.0f} GB on each")
    return estimate_training(model, hardware, best[1], price=price, calibration=calibration,
                             searched=True)


def _taken(layouts: TrainingLayout, at: int) -> TrainingLayout:
    def one(value: Any) -> int:
        return int(np.asarray(value).reshape(-1)[at if np.ndim(value) else 0])

    return TrainingLayout(**{name: one(value) for name, value in vars(layouts).items()})
