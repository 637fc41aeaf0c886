"""Draft-and-verify decoding: tokens won per step, and what drafting costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.engine.settings import EngineSettings, Speculation


def tokens_per_step(speculation: Speculation | None) -> float:
    """Return the mean tokens a request gains per verify step: (1 − α^(γ+1)) / (1 − α).

    Source: Leviathan, Kalman and Matias 2023, arXiv:2211.17192, equation 1.

    Args:
        speculation: drafting, or None for one token a step.
    """
    if speculation is None:
        return 1.0
    tokens, accept = speculation.draft_tokens, speculation.acceptance
    if accept >= 1.0:
        return tokens + 1.0
    return float((1.0 - accept ** (tokens + 1)) / (1.0 - accept))


def verify_width(settings: EngineSettings) -> int:
    """Return the tokens each decoding request sends through the model in a step."""
    return 1 + (settings.speculation.draft_tokens if settings.speculation else 0)


def decode_steps(settings: EngineSettings, osl: Any) -> Any:
    """Return the decode steps of a request: its tokens after the first, by tokens per step."""
    after_first = np.maximum(np.asarray(osl, float) - 1.0, 0.0)
    return after_first / tokens_per_step(settings.speculation)
