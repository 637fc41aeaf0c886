"""Data types of a deployment: weights, activations and KV cache, each on its own."""

from __future__ import annotations

from dataclasses import dataclass

from costsim.models.architecture import Quantisation

_ACTIVATIONS = {"fp8_block": "fp8", "int4": "bf16", "mxfp4": "bf16", "bf16_2to4": "bf16",
                "fp8_2to4": "fp8", "bf16_blocks50": "bf16", "bf16_blocks25": "bf16"}


@dataclass(frozen=True)
class Precision:
    """Data types (keys of `costsim.dtypes.BYTES_PER_ELEMENT`).

    Args:
        attention, ffn, experts, head: weights by part.
        activation: GEMM inputs of quantised parts.
        kv: KV cache.
        communication: elements sent in collectives and expert dispatch.
    """

    attention: str = "bf16"
    ffn: str = "bf16"
    experts: str = "bf16"
    head: str = "bf16"
    activation: str = "bf16"
    kv: str = "bf16"
    communication: str = "bf16"

    @classmethod
    def of_checkpoint(cls, quantisation: Quantisation) -> Precision:
        """Return the precision a checkpoint is served in as it is."""
        q = quantisation
        return cls(q.attention, q.ffn, q.experts, q.head, q.activation, q.kv)

    @classmethod
    def uniform(cls, weights: str, activation: str = "", kv: str = "bf16") -> Precision:
        """Return one data type for all weights but the head, which stays bf16.

        Where no type of the activations is given it is the weights', fp8 for fp8 weights scaled by
        blocks, and bf16 for weight-only types.
        """
        activation = activation or _ACTIVATIONS.get(weights, weights)
        return cls(weights, weights, weights, "bf16", activation, kv)
