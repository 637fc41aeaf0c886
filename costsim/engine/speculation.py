"""Draft-and-verify decoding: tokens gained per verify step."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.engine.settings import Speculation


def expected_tokens(draft_tokens: Any, acceptance: Any) -> Any:
    """Return tokens per verify step, (1 − α^(γ+1)) / (1 − α) (Leviathan et al. 2023, Eq. 1).

    Args:
        draft_tokens: γ, drafted per step.
        acceptance: α, chance that a drafted token is accepted.
    """
    a, g = np.asarray(acceptance, float), np.asarray(draft_tokens, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        series = (1.0 - a ** (g + 1.0)) / (1.0 - a)
    return np.where(a >= 1.0, g + 1.0, series)


def tokens_per_step(speculation: Speculation | None) -> tuple[Any, Any]:
    """Return tokens gained and tokens verified per step and request (1, 1 without speculation)."""
    if speculation is None:
        return 1.0, 1.0
    gained = expected_tokens(speculation.draft_tokens, speculation.acceptance)
    return gained, speculation.draft_tokens + 1.0
