"""Predicted against measured on the serving points of aiconfigurator-core.

Rows with an even checksum are for fitting the handful of figures each engine has (see
`costsim.validation.silicon_fit`); the odd rows are only reported on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.disaggregation import disaggregate
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import operating_point
from costsim.engine.validity import check_layout
from costsim.errors import InputError, unknown_name
from costsim.hardware.loader import load_hardware
from costsim.loading import read_toml
from costsim.models.architecture import Model
from costsim.models.loader import load_model
from costsim.validation.silicon_points import LeftOut, ServingPoint

MODELS = Path(__file__).with_name("silicon_models.toml")
Settings = Mapping[str, EngineSettings]


@dataclass(frozen=True)
class Prediction:
    """A point with what was predicted for it.

    Args:
        point: measured.
        ttft_s, tpot_s: predicted.
        log_error_ttft, log_error_tpot, log_error_throughput: of log(actual / predicted).
        accelerators: of the deployment.
        assumed: what the row leaves open and was filled in.
    """

    point: ServingPoint
    ttft_s: float
    tpot_s: float
    log_error_ttft: float
    log_error_tpot: float
    log_error_throughput: float
    accelerators: int
    assumed: str = ""

    def throughput(self, ttft_s: float, tpot_s: float) -> float:
        """Return output tokens per second and accelerator of the closed loop at some latencies."""
        life = ttft_s + max(self.point.osl - 1, 0) * tpot_s
        return self.point.concurrency * self.point.osl / life / self.accelerators

    @property
    def error_tpot(self) -> float:
        """log(predicted / measured) of TPOT."""
        return math.log(self.tpot_s / self.point.tpot_s)

    @property
    def error_ttft(self) -> float:
        """log(predicted / measured) of TTFT."""
        return math.log(self.ttft_s / self.point.ttft_s)

    @property
    def error_throughput(self) -> float:
        """log(predicted / measured) of output tokens per second and accelerator."""
        predicted = self.throughput(self.ttft_s, self.tpot_s)
        return math.log(predicted / self.throughput(self.point.ttft_s, self.point.tpot_s))


@lru_cache
def _model_table() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = read_toml(MODELS)["models"]
    return table


def model_of(point: ServingPoint) -> Model:
    """Return the model of a point; raises InputError where it is unknown."""
    table = _model_table()
    if point.model not in table:
        raise unknown_name("model of the serving points", point.model, table)
    return load_model(table[point.model]["name"])


def precision_of(point: ServingPoint) -> Precision:
    """Return the data types a point was served in.

    fp8 checkpoints are block-scaled for some models; TensorRT-LLM keeps the cache of quantised
    models in fp8, the others in 16 bit (their defaults).
    """
    if point.weights == "bf16":
        return Precision()
    if point.weights == "int4":
        return Precision.uniform("int4", "bf16")
    weights = point.weights
    if weights == "fp8":
        weights = _model_table()[point.model]["fp8"]
    kv = "fp8" if point.engine == "trtllm" else "bf16"
    return Precision.uniform(weights, kv=kv)


def default_settings() -> dict[str, EngineSettings]:
    """Return the engines' presets as they ship."""
    return {name: load_settings(name) for name in ("vllm", "sglang", "trtllm")}


def deployment_of(point: ServingPoint, layout: Layout, settings: Settings) -> Deployment:
    """Return the deployment of a point (one pool of a disaggregated one)."""
    model = model_of(point)
    check_layout(model, layout)
    return deploy(model, load_hardware(point.hardware), layout, precision_of(point),
                  settings[point.engine])


def predict(
    points: Sequence[ServingPoint], settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Prediction], list[LeftOut]]:
    """Return predictions of points, and those that could not be predicted with the reason.

    Args:
        points: from `read_points`.
        settings: by engine; None for the presets.
        progress: called with (done, total).
    """
    settings = settings or default_settings()
    groups: dict[tuple[Any, ...], list[ServingPoint]] = defaultdict(list)
    for p in points:
        groups[(p.model, p.hardware, p.engine, p.weights, p.layout, p.prefill, p.decode)].append(p)
    found: list[Prediction] = []
    left: list[LeftOut] = []
    for members in groups.values():
        try:
            if members[0].layout is not None:
                found += _aggregated(members, settings)
            else:
                found += _disaggregated(members, settings)
        except InputError as error:
            left += [LeftOut(p.id, p.fit, str(error)) for p in members]
        if progress:
            progress(len(found) + len(left), len(points))
    return found, left


def _columns(points: Sequence[ServingPoint]) -> tuple[Any, Any, Any]:
    return (np.array([p.concurrency for p in points], float),
            np.array([p.isl for p in points], float), np.array([p.osl for p in points], float))


def _aggregated(points: Sequence[ServingPoint], settings: Settings) -> list[Prediction]:
    layout = points[0].layout
    assert layout is not None
    deployment = deployment_of(points[0], layout, settings)
    batch, isl, osl = _columns(points)
    found = operating_point(deployment, batch, isl, osl)
    return _predictions(points, found, int(layout.accelerators), "")


def _disaggregated(points: Sequence[ServingPoint], settings: Settings) -> list[Prediction]:
    first = points[0]
    assert first.prefill is not None and first.decode is not None
    prefill = deployment_of(first, first.prefill.layout, settings)
    decode = deployment_of(first, first.decode.layout, settings)
    batch, isl, osl = _columns(points)
    x, y = first.prefill.workers, first.decode.workers
    found = disaggregate(prefill, decode, isl, osl, np.maximum(batch / (y or 1), 1.0),
                         prefill_replicas=x or 1, decode_replicas=y or 1)
    cards = (x or 1) * int(prefill.accelerators) + (y or 1) * int(decode.accelerators)
    assumed = "" if x and y else "workers not recorded: one of a kind"
    errors = {"log_error_ttft": found.prefill.log_error, "log_error_tpot": found.decode.log_error,
              "log_error_throughput": found.decode.log_error}
    queued = _closed_loop_ttft(found, batch, osl)
    return _predictions(points, _Plain(queued, found.tpot_s, **errors), cards, assumed)


@dataclass(frozen=True)
class _Plain:
    """The figures of a point, whatever model they come from."""

    ttft_s: Any
    tpot_s: Any
    log_error_ttft: Any
    log_error_tpot: Any
    log_error_throughput: Any


def _closed_loop_ttft(found: Any, batch: Any, osl: Any) -> Any:
    """Return TTFT with the queue in front of the prefill pool of a closed loop (Little's law)."""
    rate = np.asarray(found.requests_per_s, float)
    decode_s = np.maximum(osl - 1.0, 0.0) * found.tpot_s
    return np.maximum(found.ttft_s, batch / np.maximum(rate, 1e-30) - decode_s)


def _predictions(
    points: Sequence[ServingPoint], found: Any, accelerators: int, assumed: str
) -> list[Prediction]:
    shape = (len(points),)
    names = ("ttft_s", "tpot_s", "log_error_ttft", "log_error_tpot", "log_error_throughput")
    columns = [np.broadcast_to(np.asarray(getattr(found, n), float), shape) for n in names]
    found_rows = []
    for i, p in enumerate(points):
        ttft, tpot, e_ttft, e_tpot, e_rate = (float(c[i]) for c in columns)
        found_rows.append(Prediction(p, ttft, tpot, e_ttft, e_tpot, e_rate, accelerators, assumed))
    return found_rows


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one quantity over a class of points.

    Args:
        points: how many.
        median, p90: of |predicted / measured − 1|.
        bias: median of predicted / measured − 1.
        inside: share of the measured values inside the 90 % interval.
    """

    points: int
    median: float
    p90: float
    bias: float
    inside: float


def summarise(errors: Iterable[float], log_errors: Iterable[float]) -> ErrorSummary:
    """Return the summary of log errors, with the predicted standard deviations."""
    e, s = np.array(list(errors)), np.array(list(log_errors))
    if not len(e):
        return ErrorSummary(0, math.nan, math.nan, math.nan, math.nan)
    size = np.abs(np.expm1(e))
    inside = float(np.mean(np.abs(e) <= 1.6448536 * s))
    return ErrorSummary(len(e), float(np.median(size)), float(np.quantile(size, 0.9)),
                        float(np.median(np.expm1(e))), inside)


QUANTITIES = ("tpot", "ttft", "throughput")


def summaries(predictions: Sequence[Prediction]) -> dict[str, ErrorSummary]:
    """Return the summaries of TPOT, TTFT and throughput."""
    return {q: summarise((getattr(p, f"error_{q}") for p in predictions),
                         (getattr(p, f"log_error_{q}") for p in predictions))
            for q in QUANTITIES}


def by_class(
    predictions: Sequence[Prediction], key: Callable[[Prediction], str]
) -> dict[str, dict[str, ErrorSummary]]:
    """Return the summaries of each class of points, sorted by name."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[key(p)].append(p)
    return {name: summaries(groups[name]) for name in sorted(groups)}


def kendall(predictions: Sequence[Prediction], least: int = 4) -> float:
    """Return the median Kendall τ of throughput per accelerator: is the order right?

    Taken within each model, accelerator and length; groups of fewer than ``least`` are left out.
    """
    from scipy.stats import kendalltau

    groups: dict[tuple[Any, ...], list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[(p.point.model, p.point.hardware, p.point.isl, p.point.osl)].append(p)
    values = []
    for members in groups.values():
        if len(members) < least:
            continue
        predicted = [m.throughput(m.ttft_s, m.tpot_s) for m in members]
        measured = [m.throughput(m.point.ttft_s, m.point.tpot_s) for m in members]
        values.append(float(kendalltau(predicted, measured).statistic))
    return float(np.nanmedian(values)) if values else math.nan


CLASSES: dict[str, Callable[[Prediction], str]] = {
    "mode": lambda p: ("aggregated" if p.point.layout is not None else
                       "disaggregated" + (", workers assumed" if p.assumed else "")),
    "engine": lambda p: p.point.engine,
    "hardware": lambda p: p.point.hardware,
    "model": lambda p: p.point.model.split("/")[-1],
    "weights": lambda p: p.point.weights,
}


def with_figures(settings: Settings, figures: Mapping[str, Mapping[str, float]]) -> Settings:
    """Return settings with some fields replaced, by engine."""
    changes: dict[str, dict[str, Any]] = {n: dict(figures.get(n, {})) for n in settings}
    return {name: replace(s, **changes[name]) for name, s in settings.items()}
