"""From names of data types, as a user gives them, to the precision of a deployment."""

from __future__ import annotations

from dataclasses import replace

from costsim.dtypes import bytes_per_element
from costsim.engine.precision import Precision
from costsim.models.loader import load_model


def precision_from(model: str, weights: str | None, kv: str | None) -> Precision | None:
    """Return the precision of the types of weights and KV cache; None for the checkpoint's own.

    Args:
        model: name, whose checkpoint says what is not given.
        weights: data type of all weights but the head.
        kv: data type of the KV cache.
    """
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
