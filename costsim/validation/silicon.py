"""Predicted against measured on the serving points of aiconfigurator-core.

Rows with an even checksum are for fitting the handful of figures each engine has (see
`costsim.validation.silicon_fit`); the odd rows are only reported on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.disaggregated_loop import DisaggregatedLoop, disaggregated_loop
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.settings import EngineSettings, Speculation
from costsim.engine.steady_state import closed_loop
from costsim.engine.validity import check_layout
from costsim.errors import InputError, unknown_name
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model
from costsim.models.loader import load_model
from costsim.validation.silicon_flags import benchmark_of, flags_of, with_flags
from costsim.validation.silicon_points import LeftOut, ServingPoint
from costsim.validation.silicon_setups import kept_parts, model_table

# Chance that a drafted token is accepted in the public sweeps (random prompts in a chat template):
# where TensorRT-LLM's drafting rows with even checksum have no bias. 2.2 tokens per step of three
# drafted; the sweeps' own standard for coding prompts is 2.49 (DeepSeek-V4, InferenceX).
ACCEPTANCE = 0.6
# What an assumed deployment adds to the log errors of TPOT, TTFT and throughput, so that nine in
# ten of those rows with even checksum lie inside.
_ASSUMED = (0.35, 0.6, 0.35)
Settings = Mapping[str, EngineSettings]


@dataclass(frozen=True)
class Prediction:
    """A point with what was predicted for it.

    Args:
        point: measured.
        ttft_s, tpot_s: predicted.
        log_error_ttft, log_error_tpot, log_error_throughput: of log(actual / predicted).
        accelerators: of the deployment.
    """

    point: ServingPoint
    ttft_s: float
    tpot_s: float
    log_error_ttft: float
    log_error_tpot: float
    log_error_throughput: float
    accelerators: int

    def throughput(self, ttft_s: float, tpot_s: float) -> float:
        """Return output tokens per second and accelerator of the closed loop at some latencies."""
        osl = self.point.mean_osl
        life = ttft_s + max(osl - 1.0, 0.0) * tpot_s
        return self.point.concurrency * osl / life / self.accelerators

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


def model_of(point: ServingPoint) -> Model:
    """Return the model of a point; raises InputError where it is unknown."""
    table = model_table()
    if point.model not in table:
        raise unknown_name("model of the serving points", point.model, table)
    return load_model(table[point.model]["name"])


def precision_of(point: ServingPoint) -> Precision:
    """Return the data types a point was served in.

    fp8 checkpoints are block-scaled for some models; TensorRT-LLM keeps the cache of quantised
    models in fp8, the others in 16 bit (their defaults). mxfp4 experts take fp8 where the
    accelerator multiplies fp4, else 16 bit.
    """
    if point.weights == "bf16":
        return Precision()
    kept = kept_parts(point.model, point.weights)
    if point.weights == "int4":
        return replace(Precision.uniform("int4", "bf16"), **kept)
    weights = point.weights
    if weights == "fp8":
        weights = model_table()[point.model]["fp8"]
    kv = flags_of(point).get("kv", "fp8" if point.engine == "trtllm" else "bf16")
    found = replace(Precision.uniform(weights, kv=kv), **kept)
    if found.experts == "mxfp4":
        narrow = "fp4" in load_hardware(point.hardware).peak_flop_per_s
        found = replace(found, activation="fp8" if narrow else "bf16")
    return found


def settings_of(point: ServingPoint, settings: Settings) -> EngineSettings:
    """Return the engine's settings for a point: with its drafting and its serving flags."""
    own = with_flags(settings[point.engine], point)
    if point.draft_tokens:
        own = replace(own, speculation=Speculation("mtp", point.draft_tokens, ACCEPTANCE))
    return own


def default_settings() -> dict[str, EngineSettings]:
    """Return the engines' presets as they ship."""
    return {name: load_settings(name) for name in ("vllm", "sglang", "trtllm")}


def deployment_of(point: ServingPoint, layout: Layout, settings: Settings) -> Deployment:
    """Return the deployment of a point (one pool of a disaggregated one)."""
    model = model_of(point)
    own = settings_of(point, settings)
    spare = -max((each.ffn.experts for each in model.layers if each.ffn), default=0) % layout.ep
    if spare:
        own = replace(own, routing=replace(own.routing, replicated_experts=spare))
    check_layout(model, layout, spare)
    return deploy(model, load_hardware(point.hardware), layout, precision_of(point), own)


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
    found: list[Prediction] = []
    left: list[LeftOut] = []
    for members in grouped(points, settings):
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


def grouped(points: Sequence[ServingPoint], settings: Settings) -> list[list[ServingPoint]]:
    """Return points in groups that share a deployment, its settings included."""
    groups: dict[tuple[Any, ...], list[ServingPoint]] = defaultdict(list)
    for p in points:
        groups[(p.model, p.hardware, p.weights, p.layout, p.prefill, p.decode, p.public,
                precision_of(p), settings_of(p, settings))].append(p)
    return list(groups.values())


def columns(points: Sequence[ServingPoint]) -> tuple[Any, Any, Any]:
    """Return requests in flight, and mean prompt and output tokens."""
    return (np.array([p.concurrency for p in points], float),
            np.array([p.mean_isl for p in points]), np.array([p.mean_osl for p in points]))


def _aggregated(points: Sequence[ServingPoint], settings: Settings) -> list[Prediction]:
    layout = points[0].layout
    assert layout is not None
    deployment = deployment_of(points[0], layout, settings)
    batch, isl, osl = columns(points)
    found = closed_loop(deployment, batch, isl, osl, benchmark_of(points[0]))
    return _predictions(points, found, int(layout.accelerators))


@dataclass(frozen=True)
class Pools:
    """The two pools behind disaggregated points, and their closed loop."""

    prefill: Deployment
    decode: Deployment
    decode_replicas: int
    accelerators: int
    loop: DisaggregatedLoop


def pools_of(points: Sequence[ServingPoint], settings: Settings) -> Pools:
    """Return the pools of points that share a disaggregated deployment, at their loads."""
    first = points[0]
    assert first.prefill is not None and first.decode is not None
    prefill = deployment_of(first, first.prefill.layout, settings)
    decode = deployment_of(first, first.decode.layout, settings)
    batch, isl, osl = columns(points)
    x, y = first.prefill.workers or 1, first.decode.workers or 1
    found = disaggregated_loop(prefill, decode, isl, osl, batch, prefill_replicas=x,
                               decode_replicas=y, decode_slots=first.decode.slots or np.inf,
                               run=benchmark_of(first))
    cards = x * int(prefill.accelerators) + y * int(decode.accelerators)
    return Pools(prefill, decode, y, cards, found)


def _disaggregated(points: Sequence[ServingPoint], settings: Settings) -> list[Prediction]:
    pools = pools_of(points, settings)
    return _predictions(points, pools.loop, pools.accelerators)


def _predictions(
    points: Sequence[ServingPoint], found: Any, accelerators: int
) -> list[Prediction]:
    shape = (len(points),)
    names = ("ttft_s", "tpot_s", "log_error_ttft", "log_error_tpot", "log_error_throughput")
    columns = [np.broadcast_to(np.asarray(getattr(found, n), float), shape) for n in names]
    found_rows = []
    for i, p in enumerate(points):
        ttft, tpot, e_ttft, e_tpot, e_rate = (float(c[i]) for c in columns)
        if p.assumed:
            e_tpot, e_ttft, e_rate = (math.hypot(e, s) for e, s in zip(
                (e_tpot, e_ttft, e_rate), _ASSUMED, strict=True))
        found_rows.append(Prediction(p, ttft, tpot, e_ttft, e_tpot, e_rate, accelerators))
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
                       "disaggregated" + (", partly assumed" if p.point.assumed else "")),
    "engine": lambda p: p.point.engine,
    "hardware": lambda p: p.point.hardware,
    "model": lambda p: p.point.model.split("/")[-1],
    "weights": lambda p: p.point.weights,
}


def with_figures(settings: Settings, figures: Mapping[str, Mapping[str, float]]) -> Settings:
    """Return settings with some fields replaced, by engine."""
    changes: dict[str, dict[str, Any]] = {n: dict(figures.get(n, {})) for n in settings}
    return {name: replace(s, **changes[name]) for name, s in settings.items()}
