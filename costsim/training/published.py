"""Published training runs against the prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.precision import Precision
from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model
from costsim.training.estimate import TrainingEstimate, estimate_training, model_flop
from costsim.training.plan import TrainingLayout, TrainingPlan
from costsim.training.published_rows import find_row, is_for_fit, model_of, run_rows
from costsim.training.search import search_layout


@dataclass(frozen=True)
class PublishedRun:
    """One published figure of a training run.

    Args:
        name, family: the run, and the run or paper it belongs to.
        model, hardware: names.
        quantity: ``step_s``, ``gpu_hours``, ``mfu``, ``flop_per_s`` (model FLOP per accelerator),
            ``tokens_per_s`` (per accelerator) or ``total_flop``.
        published, predicted: in that unit.
        layout: the layout used, and whether it was published or is the search's.
        apart: why it does not count in the median; ``""`` where it does.
        fitted: the unexplained share was fitted to it (the half of even check sums).
        source: of the published figure.
        estimate: the whole prediction.
    """

    name: str
    family: str
    model: str
    hardware: str
    quantity: str
    published: float
    predicted: float
    layout: str
    apart: str
    fitted: bool
    source: str
    estimate: TrainingEstimate

    @property
    def error(self) -> float:
        """Predicted over published, less 1; of a rate, the error of the time it stands for."""
        ratio = self.predicted / self.published
        rate = self.quantity in ("flop_per_s", "mfu", "tokens_per_s")
        return (1.0 / ratio if rate else ratio) - 1.0

    @property
    def counts(self) -> bool:
        """Whether it counts in the median: layout published, and nothing fitted to it."""
        return not self.apart and not self.fitted


def run_names() -> list[str]:
    """Return the names of the published runs."""
    return [row["name"] for row in run_rows()]


def published_runs(
    names: Sequence[str] = (), progress: Callable[[int, int], None] | None = None
) -> list[PublishedRun]:
    """Return published runs with their predictions, all by default."""
    found = []
    wanted = names or run_names()
    for i, name in enumerate(wanted):
        if progress:
            progress(i, len(wanted))
        found.append(published_run(name))
    return found


def published_run(name: str) -> PublishedRun:
    """Return one published run with its prediction.

    Raises:
        InputError: there is no such run.
    """
    row = find_row(name)
    hardware, model = load_hardware(row["hardware"]), model_of(row["model"])
    estimate = predict(model, hardware, row)
    where = "published" if "layout" in row else "searched"
    value = _value(row["quantity"], model, estimate, hardware)
    return PublishedRun(
        name, row["family"], row["model"], row["hardware"], row["quantity"],
        float(row["published"]), value, f"{estimate.plan.layout} ({where})", row.get("apart", ""),
        is_for_fit(name), row["source"], estimate)


def predict(model: Model, hardware: Hardware, row: dict[str, Any]) -> TrainingEstimate:
    """Return the estimate of a row of the tables of runs."""
    options = dict(row.get("options", {}))
    if "precision" in options:
        kind = options.pop("precision")
        options["precision"] = Precision(kind, kind, kind, "bf16", "fp8")
    if not options.pop("count_failures", True):
        options["failures"] = None
    plan = TrainingPlan(float(row["tokens"]), float(row["batch_tokens"]), int(row["sequence"]),
                        TrainingLayout(**row.get("layout", {})), **options)
    if "layout" in row:
        return estimate_training(model, hardware, plan)
    return search_layout(model, hardware, int(row["accelerators"]), plan,
                         zero=(plan.zero,) if "zero" in options else (1, 3))


def _value(
    quantity: str, model: Model, estimate: TrainingEstimate, hardware: Hardware
) -> float:
    plan, step = estimate.plan, float(estimate.step.seconds)
    found: dict[str, Callable[[], float]] = {
        "step_s": lambda: step,
        "gpu_hours": lambda: float(estimate.gpu_hours),
        "mfu": lambda: float(estimate.mfu),
        "flop_per_s": lambda: float(estimate.mfu * hardware.peak("bf16")),
        "tokens_per_s": lambda: plan.global_batch_tokens / step / float(estimate.accelerators),
        "total_flop": lambda: model_flop(model, plan) * plan.steps,
    }
    if quantity not in found:
        raise unknown_name("quantity", quantity, found)
    return found[quantity]()


def median_error(runs: Iterable[PublishedRun]) -> float:
    """Return the median of |error| over the runs that count.

    Raises:
        InputError: none of them counts.
    """
    errors = [abs(run.error) for run in runs if run.counts]
    if not errors:
        raise InputError("no published run of known layout is left to compare with")
    return float(np.median(errors))


def family_errors(runs: Iterable[PublishedRun]) -> dict[str, float]:
    """Return the median of |error| by family, over the runs that count."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run.counts:
            found.setdefault(run.family, []).append(abs(run.error))
    return {family: float(np.median(errors)) for family, errors in found.items()}


@dataclass(frozen=True)
class Fit:
    """What the even half of the runs says of the share that the model does not explain.

    Args:
        unexplained: exp(mean log(measured / modelled)) − 1, one vote a family.
        log_error: standard deviation of the families' means around it.
        searched_log_error: root mean square of log(published / predicted) over the runs of
            unknown layout, after the unexplained share.
    """

    unexplained: float
    log_error: float
    searched_log_error: float


def fit_unexplained(runs: Iterable[PublishedRun]) -> Fit:
    """Return the fit to the even half of the runs."""
    means: dict[str, list[float]] = {}
    searched = []
    for run in runs:
        if not run.fitted or run.quantity == "total_flop":
            continue
        # The share is taken out again, so that the fit does not depend on its present value.
        ratio = -math.log1p(run.error) + math.log1p(run.estimate.plan.unexplained)
        if run.estimate.searched:
            searched.append(ratio)
        elif not run.apart:
            means.setdefault(run.family, []).append(ratio)
    families = np.array([np.mean(v) for v in means.values()])
    centre = float(np.mean(families))
    above = np.array(searched) - centre
    return Fit(math.expm1(centre), float(np.std(families)),
               float(np.sqrt(np.mean(above**2))))
