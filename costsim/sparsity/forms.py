"""The formulas of the published laws of loss against size, data, experts and granularity.

Every function broadcasts over its array arguments. ``active`` and ``total`` are parameters
without embeddings, ``tokens`` the training tokens, ``experts`` the total-to-active ratio of the
expert weights (E), ``granularity`` the ratio of the FFN's width to one expert's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Coefficients = Mapping[str, float]


@dataclass(frozen=True)
class Design:
    """What a law is asked about; fields broadcast.

    Args:
        active, total: parameters without embeddings.
        tokens: training tokens.
        experts: E, expert weights in total over those a token uses (1: dense).
        granularity: width of the dense FFN over the width of one expert.
    """

    active: Any
    total: Any
    tokens: Any
    experts: Any = 1.0
    granularity: Any = 1.0

    @property
    def compute(self) -> Array:
        """Training FLOP by the rule 6·N_active·D."""
        return 6.0 * np.asarray(self.active, float) * np.asarray(self.tokens, float)

    @property
    def sparsity(self) -> Array:
        """Share of the experts a token does not use."""
        return 1.0 - 1.0 / np.asarray(self.experts, float)


def separable(c: Coefficients, x: Design) -> Array:
    """L = E + A/N^α + B/D^β (Hoffmann et al. 2022, Eq. 2); N is the active count."""
    n, d = np.asarray(x.active, float), np.asarray(x.tokens, float)
    return c["E"] + c["A"] / n ** c["alpha"] + c["B"] / d ** c["beta"]


def saturating(experts: ArrayLike, start: float, maximum: float) -> Array:
    """Ê with 1/Ê = 1/(E − 1 + (1/E_start − 1/E_max)⁻¹) + 1/E_max (Clark et al. 2022, Eq. 1)."""
    shift = 1.0 / (1.0 / start - 1.0 / maximum)
    return 1.0 / (1.0 / (np.asarray(experts, float) - 1.0 + shift) + 1.0 / maximum)


def routed(c: Coefficients, x: Design) -> Array:
    """log L = a·log N + b·log Ê + c·log N·log Ê + d, logs to base 10 (Clark et al. 2022)."""
    log_n = np.log10(np.asarray(x.active, float))
    log_e = np.log10(saturating(x.experts, c["experts_start"], c["experts_max"]))
    return 10 ** (c["a"] * log_n + c["b"] * log_e + c["c"] * log_n * log_e + c["d"])


def granular(c: Coefficients, x: Design) -> Array:
    """L = c + (g/G^γ + a)/N^α + b/D^β (Krajewski et al. 2024, Eq. 9); N is the total count.

    Dense designs (E = 1) take the dense coefficients of the same paper.
    """
    n, d = np.asarray(x.total, float), np.asarray(x.tokens, float)
    g = np.asarray(x.granularity, float)
    size = (c["g"] / g ** c["gamma"] + c["a"]) / n ** c["alpha"]
    sparse = c["c"] + size + c["b"] / d ** c["beta"]
    dense = c["c"] + c["dense_a"] / n ** c["dense_alpha"] + c["dense_b"] / d ** c["dense_beta"]
    return np.where(np.asarray(x.experts, float) > 1.0, sparse, dense)


def sparsity(c: Coefficients, x: Design) -> Array:
    """L = a/N^α + b/D^β + c/(1−S)^λ + d/((1−S)^δ·N^γ) + e (Abnar et al. 2025, Eq. 6)."""
    n, d = np.asarray(x.total, float), np.asarray(x.tokens, float)
    kept = 1.0 - x.sparsity
    return (
        c["a"] / n ** c["alpha"]
        + c["b"] / d ** c["beta"]
        + c["c"] / kept ** c["lambda"]
        + c["d"] / (kept ** c["delta"] * n ** c["gamma"])
        + c["e"]
    )


def joint(c: Coefficients, x: Design) -> Array:
    """L = a·Ê^δ·N^(α+γ·ln Ê) + b·Ê^ω·D^(β+ζ·ln Ê) + c (Ludziejewski et al. 2025, Eq. 6)."""
    n, d = np.asarray(x.active, float), np.asarray(x.tokens, float)
    e = saturating(x.experts, c["experts_start"], c["experts_max"])
    log_e = np.log(e)
    size = c["a"] * e ** c["delta"] * n ** (c["alpha"] + c["gamma"] * log_e)
    data = c["b"] * e ** c["omega"] * d ** (c["beta"] + c["zeta"] * log_e)
    return size + data + c["c"]


def efficiency_leverage(c: Coefficients, x: Design) -> Array:
    """EL = Â^(a + d·log C + γ·(log G)² + β·log G) (Tian et al. 2025, Eq. 13); 1 where dense.

    The granularity there is 2·d_model/d_expert; with the usual FFN of 4·d_model (two matrices)
    that is half the ratio of widths that `Design.granularity` holds.
    """
    activation = 1.0 / np.asarray(x.experts, float)
    shift = 1.0 / (1.0 / c["activation_start"] - 1.0 / c["activation_max"])
    a_hat = 1.0 / (1.0 / (activation + shift) + 1.0 / c["activation_max"])
    log_g = np.log2(np.asarray(x.granularity, float))
    exponent = c["a"] + c["d"] * np.log10(x.compute) + c["gamma"] * log_g**2 + c["beta"] * log_g
    return np.where(activation >= 1.0, 1.0, a_hat**exponent)


LOSS_FORMS: dict[str, Callable[[Coefficients, Design], Array]] = {
    "separable": separable,
    "routed": routed,
    "granular": granular,
    "sparsity": sparsity,
    "joint": joint,
}
