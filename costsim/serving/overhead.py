"""Host time that each step takes on top of the accelerator's."""

from __future__ import annotations

from collections.abc import Sequence

from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import Chunk, DecodeLine, StepCost


class WithOverhead:
    """A cost with a fixed time added to each step.

    Args:
        cost: of the accelerator.
        step_s: added to each step.
    """

    def __init__(self, cost: StepCost, step_s: float) -> None:
        self.cost, self.step_s = cost, step_s
        self.lines: dict[int, DecodeLine] = {}
        self.unequal = getattr(cost, "unequal", None)

    def decode(self, batch: int) -> DecodeLine:
        line = self.lines.get(batch)
        if line is None:
            bare = self.cost.decode(batch)
            shifted = [value + self.step_s for value in bare.values]
            line = self.lines[batch] = DecodeLine(bare.knots, shifted)
        return line

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        return self.cost.mixed(batch, context, chunks) + self.step_s


def with_overhead(cost: StepCost, scheduler: Scheduler) -> StepCost:
    """Return the cost with the scheduler's host time per step."""
    return WithOverhead(cost, scheduler.step_overhead_s) if scheduler.step_overhead_s else cost
