"""Kernel tables against calibrations: errors by operator and kernel, for ``costsim validate``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.surface_fit import NINETY, kernels
from costsim.kernels.table import KernelTable

Array = NDArray[np.float64]

# Median and 90th percentile of the error to reach on held-out rows, by operator.
TARGETS: dict[str, tuple[float, float]] = {
    "gemm": (0.04, 0.15),
    "attention_prefill": (0.06, 0.20), "attention_decode": (0.06, 0.20),
    "mla_prefill": (0.06, 0.20), "mla_decode": (0.06, 0.20),
    "dsa_prefill": (0.06, 0.20), "dsa_decode": (0.06, 0.20),
    "mla_layer": (0.06, 0.20), "dsa_layer": (0.06, 0.20),
    "moe": (0.08, 0.25),
    "all_reduce": (0.10, 0.30), "all_to_all": (0.10, 0.30), "all_gather": (0.10, 0.30),
    "reduce_scatter": (0.10, 0.30),
}
# A table whose median is off by more than this was not measured on the calibration's hardware,
# or that hardware does not run at its rate.
SUSPICIOUS_BIAS = 0.5


@dataclass(frozen=True)
class KernelErrors:
    """Errors of one kernel of a table.

    Args:
        operator, variant, engine: which kernel, and whose.
        measured_s, predicted_s: of each row.
        log_error: predicted standard deviation of log(measured / predicted).
        source: where the rows come from.
    """

    operator: str
    variant: str
    engine: str
    measured_s: Array
    predicted_s: Array
    log_error: Array
    source: str = ""

    @property
    def errors(self) -> Array:
        """log(measured / predicted)."""
        return np.log(self.measured_s / self.predicted_s)

    @property
    def median(self) -> float:
        """Median size of the relative error."""
        return float(np.median(np.expm1(np.abs(self.errors))))

    @property
    def p90(self) -> float:
        """90th percentile of the size of the relative error."""
        return float(np.quantile(np.expm1(np.abs(self.errors)), 0.9))

    @property
    def bias(self) -> float:
        """Signed median error: positive where kernels take longer than predicted."""
        return float(np.expm1(np.median(self.errors)))

    @property
    def coverage(self) -> float:
        """Share of the rows inside the 90 % interval."""
        return float(np.mean(np.abs(self.errors) <= NINETY * self.log_error))

    @property
    def target(self) -> tuple[float, float] | None:
        """Median and 90th percentile to reach, None for operators without one."""
        return TARGETS.get(self.operator)

    @property
    def passed(self) -> bool | None:
        """Whether both figures are reached."""
        if self.target is None:
            return None
        return self.median <= self.target[0] and self.p90 <= self.target[1]

    @property
    def suspicion(self) -> str:
        """What a large one-sided error says, one line; empty where there is none."""
        if abs(np.median(self.errors)) < np.log1p(SUSPICIOUS_BIAS):
            return ""
        times = float(np.exp(np.median(self.errors)))
        name = f"{self.operator} {self.variant}".strip()
        return (f"{name}: measured times are {times:.2g} times the "
                "predicted ones throughout: another device, a device below its rate, or a "
                "mistake of units")


def validate_kernels(
    tables: Iterable[KernelTable], calibration: Calibration, hardware: Hardware
) -> list[KernelErrors]:
    """Return predicted against measured for every kernel of some tables.

    Args:
        tables: measured rows.
        calibration: to be tested; kernels of a table's software are used where it has them.
        hardware: whose rates the calibration is applied to.
    """
    found = []
    for table in tables:
        view = calibration.for_engine(table.software)
        for kernel in kernels(table):
            latency = view.latency(kernel.operator, hardware, **kernel.shape)
            seconds = np.broadcast_to(latency.seconds, kernel.latency_s.shape)
            error = np.broadcast_to(latency.log_error, kernel.latency_s.shape)
            found.append(KernelErrors(kernel.operator, kernel.variant, kernel.engine,
                                      kernel.latency_s, np.asarray(seconds), np.asarray(error),
                                      table.source))
    return found


def held_out_rows(calibration: Calibration) -> list[Mapping[str, Any]]:
    """Return the held-out figures that a calibration keeps, one row a surface, with targets."""
    rows: list[Mapping[str, Any]] = []
    for (operator, variant, engine), surface in sorted(calibration.surfaces.items()):
        figures = surface.about.get("held_out")
        if not figures:
            continue
        target = TARGETS.get(operator)
        reached = None if target is None else (
            figures["median"] <= target[0] and figures["p90"] <= target[1])
        rows.append({
            "operator": operator, "variant": variant, "engine": engine, "rows": surface.rows,
            "median": figures["median"], "p90": figures["p90"], "bias": figures["bias"],
            "coverage": surface.about.get("coverage"),
            "coverage_blocks": surface.about.get("coverage_blocks"),
            "blocks": surface.about.get("blocks", {}),
            "other_versions": surface.about.get("other_versions", {}),
            "version": surface.about.get("version", ""), "target": target, "reached": reached})
    return rows
