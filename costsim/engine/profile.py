"""Intensity and rate of every operator of a step: the points of a roofline figure."""

from __future__ import annotations

from dataclasses import dataclass

from costsim.engine.deployment import Deployment
from costsim.engine.step import add_model, pass_of
from costsim.ops.queue import Queue
from costsim.ops.shape import Tokens, replica_tokens


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
    return [point for phase, tokens in phases.items()
            for point in _points(deployment, phase, tokens)]


def _points(deployment: Deployment, phase: str, tokens: Tokens) -> list[OperatorPoint]:
    """Return the operators of one phase that take time."""
    queue = Queue()
    add_model(queue, pass_of(deployment), tokens)
    found = []
    for name, tally in queue.price_by_name().items():
        figures = (float(v) for v in (tally.flop, tally.memory_bytes, tally.seconds))
        point = OperatorPoint(name, phase, *figures)
        if point.seconds > 0:
            found.append(point)
    return found
