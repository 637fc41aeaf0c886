"""Whole attention layers as they were measured, against the sum of their operators.

A held-out comparison: projections come from the tables of GEMMs, dense attention (where an engine
has tables of its kernel) from those. Of sparse attention, and of dense attention where an engine
has no table of the kernel, the rest was fitted to these very layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.modules import around_s, shape_of
from costsim.kernels.readers.modules import Modules
from costsim.validation.kernels import KernelErrors


def validate_modules(
    modules: Iterable[Modules], calibration: Calibration, hardware: Hardware
) -> list[KernelErrors]:
    """Return predicted against measured layers, by phase, data types, engine and version.

    Layers that the calibration names as timed unlike a server are left out.
    """
    left_out = set(calibration.about.get("layers_left_out", ()))
    groups: dict[tuple[str, str, str, str], list[KernelErrors]] = defaultdict(list)
    for m in modules:
        family = m.operator.split("_")[0]
        if f"{family} {m.engine} {m.version}" not in left_out:
            one = _errors(m, calibration, hardware)
            groups[one.operator, one.variant, one.engine, one.source].append(one)
    return [_together(found) for found in groups.values()]


def _errors(m: Modules, calibration: Calibration, hardware: Hardware) -> KernelErrors:
    view = calibration.for_engine(m.engine)
    inner = view.latency(m.operator, hardware, **shape_of(m))
    around = around_s(m, calibration, hardware)
    total = around + inner.seconds
    share = inner.seconds / total
    gemm = view.latency(
        "gemm", hardware, m=1.0, n=1.0, k=1.0, dtype=m.weights, activation=m.activations)
    error = np.hypot(share * inner.log_error, (1.0 - share) * gemm.log_error)
    family, phase = m.operator.split("_")
    return KernelErrors(f"{family}_layer", f"{phase} {m.weights}:{m.kv_dtype}", m.engine,
                        m.latency_s, np.asarray(total), np.broadcast_to(error, total.shape),
                        m.source)


def _together(found: list[KernelErrors]) -> KernelErrors:
    measured, predicted, error = (np.concatenate([getattr(e, name) for e in found])
                                  for name in ("measured_s", "predicted_s", "log_error"))
    return replace(found[0], measured_s=measured, predicted_s=predicted, log_error=error)
