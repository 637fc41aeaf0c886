"""Pruned and quantised variants of a design beside designs that are sparse from the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from costsim.hardware.accelerator import Hardware
from costsim.planning.life_cost import LifeCost, LifePlan, price_design
from costsim.sparsity.compression import Compression, compressions
from costsim.sparsity.design import SparseDesign
from costsim.sparsity.laws import Law


@dataclass(frozen=True)
class VariantCost:
    """A compressed design that is trained longer, so that it reaches the quality all the same.

    Args:
        compression: how it is compressed.
        cost: trained to the wanted loss less the published loss of the compression; where that is
            unknown, as if it were nothing (a bound).
        cheapest, dearest: total over the life with the lower and the upper published loss [$];
            infinite where the quality is out of reach or the loss is unknown.
    """

    compression: Compression
    cost: LifeCost
    cheapest_usd: float
    dearest_usd: float

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        c = self.compression
        return {"key": c.key, "title": c.title, "quality_known": c.known,
                "added_loss": c.added_loss, "source": c.source, "provenance": c.provenance,
                "kernels": c.kernels, "total_usd_range": [self.cheapest_usd, self.dearest_usd],
                **self.cost.as_dict()}


def variants(
    design: SparseDesign, law: Law, plan: LifePlan, hardware: Hardware,
    ways: Sequence[Compression] = (),
) -> list[VariantCost]:
    """Return the life cost of a design under each way to compress it.

    Args:
        design: such as the cheapest dense one.
        law, plan, hardware: as in `price_design`.
        ways: all that ship by default.
    """
    return [_variant(design, law, plan, hardware, way) for way in ways or compressions()]


def _variant(
    design: SparseDesign, law: Law, plan: LifePlan, hardware: Hardware, way: Compression
) -> VariantCost:
    def priced(added: float) -> LifeCost:
        wanted = replace(plan, loss=max(plan.loss - added, 1e-6), precision=way.precision)
        return price_design(design, law, wanted, hardware)

    if way.added_loss is None:
        cost = priced(0.0)
        return VariantCost(way, cost, cost.total_usd, float("inf"))
    low, central, high = (priced(x) for x in way.added_loss)
    return VariantCost(way, central, low.total_usd, high.total_usd)
