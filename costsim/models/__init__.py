"""Architectures of transformers as data (floor 2)."""

from costsim.models.architecture import (
    Attention,
    Encoder,
    FeedForward,
    Layers,
    LinearAttention,
    Model,
    Quantisation,
)

__all__ = [
    "Attention",
    "Encoder",
    "FeedForward",
    "Layers",
    "LinearAttention",
    "Model",
    "Quantisation",
]
