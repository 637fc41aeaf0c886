"""From what stands on the command line to objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costsim.engine.precision import Precision


def precision_from(model: str, weights: str | None, kv: str | None) -> Precision | None:
    """Return the precision of --precision and --kv, None for the checkpoint's own."""
    from costsim.dtypes import bytes_per_element
    from costsim.engine.precision import Precision
    from costsim.models.loader import load_model

    if weights is None and kv is None:
        return None
    if weights is None:
        base = Precision.of_checkpoint(load_model(model).quantisation)
    else:
        bytes_per_element(weights)
        base = Precision.uniform(weights, "bf16" if weights == "int4" else "")
    if kv is None:
        return base
    bytes_per_element(kv)
    return replace(base, kv=kv)
