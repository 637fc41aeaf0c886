"""Laws of quality against size, data and sparsity as data, with the range they were fitted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from costsim import loading
from costsim.errors import InputError, unknown_name
from costsim.sparsity.forms import LOSS_FORMS, Array, Design, efficiency_leverage

LAWS_FOLDER = Path(__file__).parent / "laws"

# How fast a law loses hold outside its range: standard deviation of log loss per decade. The
# published laws, asked for one model a decade beyond their largest runs, differ in their
# increments by about this much; it is a judgement and not a fit, and can be overridden.
EXTRAPOLATION_LOG_ERROR_PER_DECADE = 0.01


@dataclass(frozen=True)
class Law:
    """One published (or fitted) law.

    Args:
        name, title: file name and the name to show.
        form: key of `costsim.sparsity.forms.LOSS_FORMS`, or ``leverage``.
        coefficients: of the form.
        valid: ``quantity -> (lowest, highest)`` of the runs it was fitted to.
        log_error: standard deviation of log(loss) inside that range.
        loss: what the loss is (tokenizer, data): losses of two laws do not compare.
        source, provenance, caveat: where it comes from and what it does not cover.
        published: further figures of the paper that tests check.
    """

    name: str
    title: str
    form: str
    coefficients: Mapping[str, float]
    valid: Mapping[str, tuple[float, float]]
    log_error: float
    loss: str
    source: str
    provenance: str
    caveat: str = ""
    published: Mapping[str, float] | None = None

    def predict(self, design: Design) -> Array:
        """Return the loss of designs, in the law's own unit.

        Raises:
            InputError: the law gives no loss of its own (form ``leverage``).
        """
        if self.form not in LOSS_FORMS:
            raise InputError(
                f"law '{self.name}' gives no loss but a compute leverage: use predict_leverage, "
                "or matched_dense_loss with a dense law"
            )
        return LOSS_FORMS[self.form](self.coefficients, design)

    def decades_outside(self, design: Design) -> Array:
        """Return how far designs lie outside the fitted range, in decades over all quantities."""
        distance: Any = 0.0
        for quantity, (low, high) in self.valid.items():
            value = np.asarray(_quantity(design, quantity), float)
            if quantity in ("sparsity", "activation"):
                # Shares: a decade is a tenfold of the share that is used.
                value, low, high = _kept(quantity, value, low, high)
            distance = distance + np.maximum(np.log10(low / value), 0.0)
            distance = distance + np.maximum(np.log10(value / high), 0.0)
        return np.asarray(distance, float)

    def total_log_error(self, design: Design) -> Array:
        """Return the standard deviation of log(loss), widened outside the fitted range."""
        beyond = EXTRAPOLATION_LOG_ERROR_PER_DECADE * self.decades_outside(design)
        penalty = 2.0 if self.provenance == "unverified" else 1.0
        return penalty * np.hypot(self.log_error, beyond)

    def warning(self, design: Design) -> str:
        """Return a line on what lies outside the fitted range, or ``""``."""
        beyond = float(np.max(self.decades_outside(design)))
        if beyond < 0.05:
            return ""
        return f"{self.title}: extrapolated {beyond:.1f} decades beyond the runs it was fitted to"


def _quantity(design: Design, name: str) -> Any:
    if name == "activation":
        return 1.0 / np.asarray(design.experts, float)
    return getattr(design, name)


def _kept(quantity: str, value: Array, low: float, high: float) -> tuple[Array, float, float]:
    if quantity == "activation":
        return value, low, high
    return np.maximum(1.0 - value, 1e-12), 1.0 - high, 1.0 - low


@lru_cache
def law_names() -> tuple[str, ...]:
    """Return the names of the laws that ship."""
    return tuple(sorted(path.stem for path in LAWS_FOLDER.glob("*.toml")))


def load_law(name: str) -> Law:
    """Return a law by name, or from a TOML file.

    Raises:
        InputError: there is no such law, or its file is wrong.
    """
    path = Path(name) if name.endswith(".toml") else LAWS_FOLDER / f"{name}.toml"
    if not path.is_file():
        raise unknown_name("scaling law", name, law_names())
    table = loading.read_toml(path)
    missing = {"title", "form", "loss", "source", "provenance", "log_error", "coefficients",
               "valid"} - table.keys()
    if missing:
        raise InputError(f"{path}: key '{sorted(missing)[0]}' is missing")
    if table["form"] not in {*LOSS_FORMS, "leverage"}:
        raise unknown_name(f"form of law in {path}:", table["form"], {*LOSS_FORMS, "leverage"})
    valid = {key: (float(low), float(high)) for key, (low, high) in table.pop("valid").items()}
    return Law(name=path.stem, valid=valid, **table)


def predict_leverage(law: Law, design: Design) -> Array:
    """Return how many times the training compute a dense model needs for the same loss.

    For a law of loss this is the ratio of the dense compute-optimal compute that reaches the
    design's loss to the design's own compute; for a law of leverage it is the law itself.
    """
    if law.form == "leverage":
        return efficiency_leverage(law.coefficients, design)
    loss = law.predict(design)
    return dense_compute_for_loss(law, loss) / design.compute


def dense_compute_for_loss(law: Law, loss: Any) -> Array:
    """Return the least training FLOP at which a dense model of this law reaches a loss.

    Found on a fine grid of compute by the compute-optimal split of each, interpolated in logs.
    """
    compute = np.logspace(16, 34, 361)
    best = optimal_dense_loss(law, compute)
    order = np.argsort(best)
    reached = np.interp(np.asarray(loss, float), best[order], np.log10(compute)[order])
    return 10.0**reached


def optimal_dense_loss(law: Law, compute: Any) -> Array:
    """Return the lowest loss a dense model reaches at each training compute [FLOP]."""
    flop = np.atleast_1d(np.asarray(compute, float))[:, None]
    active = np.logspace(6, 15, 541)[None, :]
    losses = law.predict(Design(active, active, flop / (6.0 * active)))
    return np.min(losses, axis=1)


def matched_dense_loss(leverage_law: Law, dense_law: Law, design: Design) -> Array:
    """Return the loss a leverage law implies: that of the dense model with EL times the compute."""
    compute = predict_leverage(leverage_law, design) * design.compute
    return optimal_dense_loss(dense_law, compute.ravel()).reshape(np.shape(compute))
