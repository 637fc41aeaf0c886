"""Why a result is what it is, from names or objects (`costsim.explain`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costsim.engine.explain import Explanation
from costsim.engine.explain import explain as explain_deployment
from costsim.planning.estimate import make_deployment

__all__ = ["Explanation", "explain"]


def explain(
    model: Any, hardware: Any, layout: Any = None, *, batch: int, isl: float, osl: float,
    measured_output_tokens_per_s: float | None = None, precision: Any = None,
    engine: Any = "vllm", changes: Sequence[str] = (),
) -> Explanation:
    """Return what an operating point, or a measured throughput there, is made of.

    Args:
        model, hardware, layout, precision, engine, changes: as in `costsim.estimate`.
        batch, isl, osl: the operating point.
        measured_output_tokens_per_s: of the whole replica; None: explain the prediction.
    """
    deployment = make_deployment(model, hardware, layout, precision=precision, engine=engine,
                                 batch=batch, context=isl + osl, changes=changes)
    return explain_deployment(deployment, batch, isl, osl, measured_output_tokens_per_s)
