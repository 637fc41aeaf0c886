"""What the comparison with real models found: steps, ratios, and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from costsim.kernels.calibration import Calibration
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.surface_fit import NINETY

# Median error to reach on an idle machine, by class, and of the cost ratio of MoE to dense.
AIMS = {"dense": 0.12, "moe": 0.15, "ratio": 0.10}


@dataclass(frozen=True)
class Step:
    """One step, measured and predicted.

    Args:
        model, phase, requests, tokens: which; tokens are cached (decode) or new (prefill).
        moe: whether the model is a mixture of experts.
        measured_s, predicted_s: time of the step.
        log_error: predicted standard deviation of log(measured / predicted).
        spread: slowest round over the fastest, less one.
        by_operator: what the prediction is made of [s].
    """

    model: str
    phase: str
    requests: int
    tokens: int
    moe: bool
    measured_s: float
    predicted_s: float
    log_error: float
    spread: float
    by_operator: Mapping[str, float]

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return float(np.log(self.predicted_s / self.measured_s))


@dataclass(frozen=True)
class Ratio:
    """Time of a mixture of experts over that of the dense model of the same active parameters.

    Args:
        moe, dense: the two; step: which both took.
        measured, predicted: ratios.
    """

    moe: str
    dense: str
    step: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return float(np.log(self.predicted / self.measured))


@dataclass(frozen=True)
class EngineValidation:
    """All of the comparison.

    Args:
        steps, ratios: one a row.
        host_layer: host time of a layer over the bytes moved in it; host_step_s: of a step; both
            measured on small models that are not among the steps.
        kernels: rows and held-out median error of each fitted kernel.
        kernel_spread: median over kernels of slowest round over fastest, less one.
        parameters: of each model.
        about: device, data type, threads, versions, processor.
        noise: of the machine meanwhile.
        seconds: the measuring took.
    """

    steps: Sequence[Step]
    ratios: Sequence[Ratio]
    host_layer: tuple[tuple[float, float], ...]
    host_step_s: float
    kernels: Sequence[Mapping[str, Any]]
    kernel_spread: float
    parameters: Mapping[str, int]
    about: Mapping[str, Any]
    noise: NoiseReport
    seconds: float
    calibration: Calibration | None = field(default=None, compare=False)

    def summaries(self) -> list[dict[str, Any]]:
        """Return median, p90, bias and coverage by class, then by model and phase."""
        groups: list[tuple[str, str, list[Step]]] = []
        for name, moe in (("dense", False), ("moe", True)):
            groups.append((name, "", [s for s in self.steps if s.moe == moe]))
        for name in dict.fromkeys(s.model for s in self.steps):
            for phase in ("decode", "prefill"):
                groups.append((name, phase, [s for s in self.steps
                                             if (s.model, s.phase) == (name, phase)]))
        return [{"class": name, "phase": phase, "aim": AIMS.get(name), **error_figures(rows)}
                for name, phase, rows in groups if rows]

    def ratio_summary(self) -> dict[str, Any]:
        """Return the error of the ratios."""
        size = [np.expm1(abs(r.error)) for r in self.ratios]
        return {"points": len(size), "aim": AIMS["ratio"],
                "median": float(np.median(size)) if size else None,
                "worst": float(max(size)) if size else None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "about": dict(self.about), "noise": self.noise.as_dict(),
            "noise_sentence": self.noise.sentence(), "seconds": self.seconds,
            "kernel_spread": self.kernel_spread,
            "step_spread": float(np.median([s.spread for s in self.steps])),
            "host_layer": [{"bytes": b, "seconds": s} for b, s in self.host_layer],
            "host_step_s": self.host_step_s,
            "parameters": dict(self.parameters), "summaries": self.summaries(),
            "ratio": self.ratio_summary(), "kernels": list(self.kernels),
            "ratios": [{**asdict(r), "error": r.error} for r in self.ratios],
            "steps": [{**asdict(s), "error": s.error} for s in self.steps]}


def error_figures(rows: Sequence[Step]) -> dict[str, Any]:
    """Return points, median and p90 of the size of the error, bias, share in the 90 % interval."""
    errors = np.array([s.error for s in rows])
    size = np.expm1(np.abs(errors))
    inside = np.abs(errors) <= NINETY * np.array([s.log_error for s in rows])
    return {"points": len(rows), "median": float(np.median(size)),
            "p90": float(np.quantile(size, 0.9)), "bias": float(np.expm1(np.median(errors))),
            "inside": float(np.mean(inside)),
            "spread": float(np.median([s.spread for s in rows]))}
