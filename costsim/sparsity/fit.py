"""Fit laws of loss to one's own small runs, and say how far they can be trusted at scale.

The law is chosen by how well it predicts the *largest* runs from the smaller ones, because that
is the use it will be put to; its interval at the planned size comes from a bootstrap over the
runs and from that held-out error, grown with the distance in decades of compute.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from costsim import loading
from costsim.errors import InputError, suggestion
from costsim.sparsity.forms import LOSS_FORMS, Array, Coefficients, Design

COLUMNS = ("active", "total", "experts", "top_k", "granularity", "tokens", "loss")


@dataclass(frozen=True)
class Runs:
    """Training runs, one element each.

    Args:
        design: active, total, tokens, experts (total over active expert weights), granularity.
        loss: final loss of each run.
    """

    design: Design
    loss: Array

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, index: Any) -> Runs:
        """Return the runs of an index array or mask."""
        d = self.design
        fields = (d.active, d.total, d.tokens, d.experts, d.granularity)
        parts = (np.broadcast_to(np.asarray(v, float), self.loss.shape)[index] for v in fields)
        return Runs(Design(*parts), self.loss[index])


@dataclass(frozen=True)
class Trial:
    """How one form did: its error on the largest runs, fitted on the smaller ones."""

    form: str
    heldout_rms: float
    heldout_bias: float
    fit_rms: float


@dataclass(frozen=True)
class FittedLaw:
    """A form fitted to all runs, with what its trial says of its error.

    Args:
        form: key of `LOSS_FORMS`.
        coefficients: central fit.
        samples: bootstrap fits, one mapping each.
        trials: all forms tried, best first.
        largest_compute, smallest_compute: range of training FLOP of the runs.
        heldout_decades: how far beyond the smaller runs the held-out ones lay.
    """

    form: str
    coefficients: Coefficients
    samples: tuple[Coefficients, ...]
    trials: tuple[Trial, ...]
    smallest_compute: float
    largest_compute: float
    heldout_decades: float

    def predict(self, design: Design) -> Array:
        """Return the central loss of designs."""
        return LOSS_FORMS[self.form](self.coefficients, design)

    def sample(self, design: Design) -> Array:
        """Return the loss under each bootstrap fit, shape (samples, …designs)."""
        return np.stack([LOSS_FORMS[self.form](c, design) for c in self.samples])

    def interval(self, design: Design, level: float = 0.90) -> tuple[Array, Array]:
        """Return the interval of the loss: bootstrap spread widened by the held-out error.

        The held-out error is taken to grow in proportion to the decades of compute beyond the
        runs, and its bias moves the bound on its side.
        """
        low, high = np.quantile(self.sample(design), [0.5 - level / 2, 0.5 + level / 2], axis=0)
        best = self.trials[0]
        decades = np.maximum(np.log10(design.compute / self.largest_compute), 0.0)
        growth = np.maximum(decades / max(self.heldout_decades, 0.1), 1.0)
        spread = 1.645 * best.heldout_rms * growth
        return low * np.exp(-spread), high * np.exp(spread)


def read_runs(path: Path | str) -> Runs:
    """Return the runs of a CSV with the columns active, total, tokens, loss and, where the model
    is sparse, experts, top_k, granularity.

    Raises:
        InputError: a column is missing or unknown, or a value is not a positive number.
    """
    reader = csv.DictReader(io.StringIO(loading.read_text(path)))
    names = [name.strip() for name in reader.fieldnames or []]
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"{path}: unknown column '{name}'{suggestion(name, COLUMNS)}")
    for name in ("active", "total", "tokens", "loss"):
        if name not in names:
            raise InputError(
                f"{path}: column '{name}' is missing; needed: active,total,tokens,loss"
            )
    rows = [_row(path, number, row) for number, row in enumerate(reader, start=2)]
    if len(rows) < 6:
        raise InputError(f"{path}: {len(rows)} runs; at least 6 are needed to fit a law")
    table = np.array(rows)
    active, total, ratio, granularity, tokens, loss = table.T
    return Runs(Design(active, total, tokens, ratio, granularity), loss)


def _row(path: Path | str, line: int, row: Mapping[str, str]) -> list[float]:
    values = {name: _positive(path, line, name, row.get(name)) for name in COLUMNS}
    if values["total"] < values["active"]:
        raise InputError(f"{path} line {line}: total {values['total']:g} is below active")
    if values["top_k"] > values["experts"]:
        raise InputError(f"{path} line {line}: top_k {values['top_k']:g} above experts")
    ratio = values["experts"] / values["top_k"]
    return [values["active"], values["total"], ratio, values["granularity"], values["tokens"],
            values["loss"]]


def _positive(path: Path | str, line: int, name: str, text: str | None) -> float:
    if text is None or not text.strip():
        return 1.0
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{path} line {line}: {name} = {text!r} must be a positive number")
    return value


@dataclass(frozen=True)
class _Parameters:
    """Names, starting values and transform of a form's free coefficients."""

    start: Mapping[str, float]
    positive: frozenset[str]


_FORMS: dict[str, _Parameters] = {
    "separable": _Parameters(
        {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1000.0, "beta": 0.33},
        frozenset({"E", "A", "alpha", "B", "beta"}),
    ),
    "joint": _Parameters(
        {"a": 36.0, "alpha": -0.19, "delta": -0.23, "gamma": 0.01, "b": 36.0, "beta": -0.18,
         "omega": 0.55, "zeta": -0.026, "c": 1.4, "experts_start": 2.0, "experts_max": 290.0},
        frozenset({"a", "b", "c", "experts_start", "experts_max"}),
    ),
    "granular": _Parameters(
        {"a": 18.0, "alpha": 0.12, "b": 31.0, "beta": 0.15, "g": 2.0, "gamma": 0.6, "c": 0.5,
         "dense_a": 16.0, "dense_alpha": 0.126, "dense_b": 27.0, "dense_beta": 0.127},
        frozenset({"a", "alpha", "b", "beta", "g", "gamma", "c", "dense_a", "dense_alpha",
                   "dense_b", "dense_beta"}),
    ),
    "sparsity": _Parameters(
        {"a": 16000.0, "alpha": 0.6, "b": 5400.0, "beta": 0.4, "c": 0.46, "lambda": -0.17,
         "d": 17.0, "delta": 0.16, "gamma": 0.16, "e": 0.94},
        frozenset({"a", "alpha", "b", "beta", "c", "d", "gamma", "e"}),
    ),
}


def fit_form(form: str, runs: Runs, start: Coefficients | None = None) -> Coefficients:
    """Return the coefficients of one form, fitted to log loss with a soft-L1 norm.

    A weak pull towards the published values (a tenth of a standard residual per coefficient, in
    its own log) keeps coefficients that the runs do not determine from running away.
    """
    spec = _FORMS[form]
    first = dict(start or spec.start)
    names = list(spec.start)
    scale = np.array([1.0 if n in spec.positive else abs(spec.start[n]) for n in names])
    origin = np.array([np.log(spec.start[n]) if n in spec.positive else spec.start[n]
                       for n in names])

    def unpack(x: Array) -> dict[str, float]:
        return {n: float(np.exp(min(v, 60.0))) if n in spec.positive else float(v)
                for n, v in zip(names, x, strict=True)}

    def residual(x: Array) -> Array:
        with np.errstate(all="ignore"):
            predicted = LOSS_FORMS[form](unpack(x), runs.design)
        error = np.log(np.where(predicted > 0, predicted, 1e-6)) - np.log(runs.loss)
        error = np.nan_to_num(error, nan=10.0, posinf=10.0, neginf=-10.0)
        return np.concatenate([error, 1e-4 * (x - origin) / scale])

    x0 = np.array([np.log(first[n]) if n in spec.positive else first[n] for n in names])
    found = least_squares(residual, x0, loss="soft_l1", f_scale=0.01, x_scale=scale, max_nfev=400)
    return unpack(found.x)


def _usable_forms(runs: Runs) -> list[str]:
    experts = np.asarray(runs.design.experts, float)
    if np.all(experts == 1.0):
        return ["separable"]
    forms = ["separable", "joint", "sparsity"]
    if np.ptp(np.asarray(runs.design.granularity, float)) > 0:
        forms.append("granular")
    return forms


def _try(form: str, runs: Runs, small: NDArray[np.bool_]) -> Trial:
    coefficients = fit_form(form, runs.take(small))

    def errors(part: Runs) -> Array:
        return np.log(LOSS_FORMS[form](coefficients, part.design) / part.loss)

    inside, outside = errors(runs.take(small)), errors(runs.take(~small))
    return Trial(form, float(np.sqrt(np.mean(outside**2))), float(-np.mean(outside)),
                 float(np.sqrt(np.mean(inside**2))))


def fit_runs(
    runs: Runs,
    *,
    heldout_share: float = 0.25,
    bootstrap: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FittedLaw:
    """Choose the law that predicts the largest runs best, and fit it to all of them.

    Args:
        runs: the training runs.
        heldout_share: share of the runs, largest compute first, that chooses the law.
        bootstrap: resampled fits for the interval.
        seed: of the resampling.
        progress: called with (done, total).
    """
    compute = runs.design.compute
    order = np.argsort(compute)
    n_large = max(2, round(len(runs) * heldout_share))
    small = np.ones(len(runs), bool)
    small[order[-n_large:]] = False
    trials = sorted((_try(f, runs, small) for f in _usable_forms(runs)),
                    key=lambda t: t.heldout_rms)
    form = trials[0].form
    central = fit_form(form, runs)
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(bootstrap):
        drawn = rng.integers(0, len(runs), len(runs))
        samples.append(fit_form(form, runs.take(drawn), start=central))
        if progress:
            progress(i + 1, bootstrap)
    decades = float(np.mean(np.log10(compute[~small])) - np.log10(compute[small].max()))
    return FittedLaw(form, central, tuple(samples), tuple(trials), float(compute.min()),
                     float(compute.max()), decades)


@dataclass(frozen=True)
class Verdict:
    """What small runs say of two designs at the planned size.

    Args:
        small_gain: loss of the dense design minus that of the sparse one where the runs are.
        planned_gain: the same at the planned size, by the central fit.
        planned_low, planned_high: its 90 % interval.
        warnings: in plain words; empty where the answer holds.
    """

    small_gain: float
    planned_gain: float
    planned_low: float
    planned_high: float
    warnings: tuple[str, ...]


def judge(law: FittedLaw, small: tuple[Design, Design], planned: tuple[Design, Design]) -> Verdict:
    """Compare dense and sparse at the size of the runs and at the planned size.

    Args:
        law: the fitted law.
        small: (dense, sparse) designs at the size of the runs.
        planned: (dense, sparse) designs at the planned size.
    """

    def gain(pair: tuple[Design, Design]) -> float:
        return float(law.predict(pair[0]) - law.predict(pair[1]))

    draws = law.sample(planned[0]) - law.sample(planned[1])
    decades = max(float(np.log10(np.max(planned[1].compute) / law.largest_compute)), 0.0)
    growth = max(decades / max(law.heldout_decades, 0.1), 1.0)
    best = law.trials[0]
    extra = 1.645 * best.heldout_rms * growth * float(law.predict(planned[1]))
    low, high = np.quantile(draws, [0.05, 0.95])
    low, high = float(low) - extra, float(high) + extra
    small_gain, planned_gain = gain(small), gain(planned)
    return Verdict(small_gain, planned_gain, low, high,
                   _warnings(small_gain, planned_gain, low, high, decades, best))


def _warnings(
    small: float, planned: float, low: float, high: float, decades: float, trial: Trial
) -> tuple[str, ...]:
    lines = []
    if small > 0 >= planned:
        lines.append("the sparser model wins where the runs are and loses at the planned size")
    elif small > 0 and low <= 0:
        lines.append("the sparser model wins where the runs are; at the planned size the interval "
                     "holds both outcomes: worked in early tests, may be poor later")
    if planned > 0 and planned < 0.5 * small:
        lines.append(f"the gain shrinks from {small:.3f} to {planned:.3f} in loss")
    if decades > 1.0:
        lines.append(f"the planned size lies {decades:.1f} decades of compute beyond the runs")
    if abs(trial.heldout_bias) > 2 * trial.fit_rms and abs(trial.heldout_bias) > 0.003:
        side = "worse" if trial.heldout_bias > 0 else "better"
        lines.append(f"the largest runs came out {side} than the smaller ones predict "
                     f"({100 * abs(trial.heldout_bias):.1f} %)")
    return tuple(lines)
