"""Published training runs against the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from costsim.engine.precision import Precision
from costsim.errors import unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.loading import read_toml
from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.loader import load_model
from costsim.training.estimate import TrainingEstimate, estimate_training
from costsim.training.plan import TrainingLayout, TrainingPlan
from costsim.training.search import search_layout

RUNS = Path(__file__).with_name("data") / "runs.toml"


@dataclass(frozen=True)
class PublishedRun:
    """One published figure of a training run.

    Args:
        name: the run.
        quantity: ``step_s``, ``gpu_hours``, ``mfu`` or ``flop_per_s`` (model FLOP per
            accelerator).
        published, predicted: in that unit.
        layout: the layout used, and whether it was published or is the search's.
        apart: why it does not count in the median; ``""`` where it does.
        source: of the published figure.
        estimate: the whole prediction.
    """

    name: str
    quantity: str
    published: float
    predicted: float
    layout: str
    apart: str
    source: str
    estimate: TrainingEstimate

    @property
    def error(self) -> float:
        """Predicted over published, less 1; of a rate, the error of the time it stands for."""
        ratio = self.predicted / self.published
        return (1.0 / ratio if self.quantity in ("flop_per_s", "mfu") else ratio) - 1.0


@cache
def _table() -> dict[str, Any]:
    return read_toml(RUNS)


def run_names() -> list[str]:
    """Return the names of the published runs."""
    return [run["name"] for run in _table()["runs"]]


def published_runs() -> list[PublishedRun]:
    """Return all published runs with their predictions."""
    return [published_run(name) for name in run_names()]


def published_run(name: str) -> PublishedRun:
    """Return one published run with its prediction.

    Raises:
        InputError: there is no such run.
    """
    rows = {run["name"]: run for run in _table()["runs"]}
    if name not in rows:
        raise unknown_name("published training run", name, rows)
    row = rows[name]
    hardware, model = load_hardware(row["hardware"]), model_of(row["model"])
    estimate = predict(model, hardware, row)
    where = "published" if "layout" in row else "searched"
    return PublishedRun(
        name, row["quantity"], float(row["published"]), _value(row["quantity"], estimate, hardware),
        f"{estimate.plan.layout} ({where})", row.get("apart", ""), row["source"], estimate)


def predict(model: Model, hardware: Hardware, row: dict[str, Any]) -> TrainingEstimate:
    """Return the estimate of a row of the table of runs."""
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


def _value(quantity: str, estimate: TrainingEstimate, hardware: Hardware) -> float:
    if quantity == "step_s":
        return float(estimate.step.seconds)
    if quantity == "gpu_hours":
        return float(estimate.gpu_hours)
    if quantity == "mfu":
        return float(estimate.mfu)
    if quantity == "flop_per_s":
        return float(estimate.mfu * hardware.peak("bf16"))
    raise unknown_name("quantity", quantity, ("step_s", "gpu_hours", "mfu", "flop_per_s"))


def model_of(name: str) -> Model:
    """Return a model of the library, or one whose shape stands in the table of runs."""
    shapes = _table()["models"]
    return _shape(name, shapes[name]) if name in shapes else load_model(name)


def _shape(name: str, shape: dict[str, Any]) -> Model:
    head = shape.get("head_dim", shape["hidden"] // shape["heads"])
    mixer = Attention("full", shape["heads"], shape.get("kv_heads", shape["heads"]), head, head)
    ffn = FeedForward("dense", shape.get("width", 4 * shape["hidden"]),
                      gated=shape.get("gated", False))
    return Model(name=name, title=shape["title"], hidden_size=shape["hidden"],
                 vocab_size=shape["vocab"], layers=(Layers(shape["layers"], mixer, ffn),),
                 tied_embeddings=shape.get("tied", True), source=shape["source"])


def median_error(runs: list[PublishedRun]) -> float:
    """Return the median of |error| over the runs that are not kept apart."""
    return float(np.median([abs(run.error) for run in runs if not run.apart]))


def family_errors(runs: list[PublishedRun]) -> dict[str, float]:
    """Return the median of |error| by training run, those kept apart left out."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if not run.apart:
            family = run.name.split(",")[0]
            found.setdefault(_FAMILY.get(family.split()[0], family), []).append(abs(run.error))
    return {family: float(np.median(errors)) for family, errors in found.items()}


# Benchmarks of one paper at several sizes are one family.
_FAMILY = {"Megatron": "Megatron (Korthikanti et al.)"}
