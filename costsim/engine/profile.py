"""Intensity and rate of every operator of a step: the points of a roofline figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.step import add_model, pass_of
from costsim.kernels.calibration import Latency
from costsim.ops.shape import replica_tokens
from costsim.ops.tally import Tally


@dataclass(frozen=True)
class OperatorPoint:
    """One operator of one phase.

    Args:
        name, phase: operator; ``decode`` or ``prefill``.
        flop, bytes, seconds: per accelerator and step.
    """

    name: str
    phase: str
    flop: float
    bytes: float
    seconds: float

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flop / max(self.bytes, 1e-30)

    @property
    def flop_per_s(self) -> float:
        """Achieved rate."""
        return self.flop / max(self.seconds, 1e-30)


@dataclass
class _WorkTally(Tally):
    """A tally that also keeps FLOP and bytes by operator."""

    work: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: str, latency: Latency, count: Any = 1.0, when: Any = True) -> None:
        """Add calls of a kernel and keep their work."""
        super().add(name, latency, count, when)
        weight = float(np.max(np.where(when, count, 0.0)))
        flop, moved = self.work.get(name, (0.0, 0.0))
        self.work[name] = (flop + float(np.max(latency.flop)) * weight,
                           moved + float(np.max(latency.memory_bytes)) * weight)


def operator_points(
    deployment: Deployment, batch: int, isl: float, osl: float
) -> list[OperatorPoint]:
    """Return the operators of a decode step at ``batch`` and of one prompt of ``isl`` tokens.

    Args:
        deployment: with a scalar layout.
        batch: decoding requests of the replica.
        isl, osl: tokens of a request.
    """
    dp = deployment.layout.dp
    phases = {
        "decode": replica_tokens(0, 0, 0, batch, isl + osl / 2, dp),
        "prefill": replica_tokens(1, isl, 0, 0, 0, dp),
    }
    points = []
    for phase, tokens in phases.items():
        tally = _WorkTally()
        add_model(tally, pass_of(deployment), tokens)
        for name, (flop, moved) in tally.work.items():
            seconds = float(np.max(tally.by_operator[name]))
            if seconds > 0:
                points.append(OperatorPoint(name, phase, flop, moved, seconds))
    return points
