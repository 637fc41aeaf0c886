"""Published serving figures against predictions from kernels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.kernels.store import load_calibration
from costsim.loading import read_toml
from costsim.models.architecture import is_moe
from costsim.models.count import active_parameters
from costsim.models.loader import load_model
from costsim.validation.comparison import Aim, ComparedPoint, Comparison, by_class, summarise
from costsim.validation.published_case import CALIBRATIONS, ENGINE, KERNELS, ROOFLINE, Case
from costsim.validation.published_points import PublishedPoint, published_points
from costsim.validation.published_regimes import Predicted, predict

EXPLANATIONS = Path(__file__).with_name("published_explanations.toml")
CLASSES = ("hardware", "model class", "regime", "document", "calibration")
AIM_CALIBRATED, AIM_BORROWED = 0.15, 0.25
"""Median errors of throughput to reach with a calibration of the hardware itself, and without."""

Progress = Callable[[int, int], None]


def compare(
    points: Sequence[PublishedPoint] | None = None, mode: str = KERNELS, rate: float = 1.0,
    progress: Progress | None = None,
) -> tuple[list[ComparedPoint], dict[str, int]]:
    """Return compared points, and the reasons why others could not be predicted.

    Args:
        points: None for the project's table.
        mode: one of `CALIBRATIONS`.
        rate: factor on the hardware's rates: a planted fault that the tests must catch.
        progress: called with (done, total).
    """
    wanted = published_points() if points is None else points
    found: list[ComparedPoint] = []
    left: dict[str, int] = {}
    for i, point in enumerate(wanted):
        try:
            found.append(_compared(point, _predicted(point, mode, rate)))
        except InputError as error:
            left[str(error)] = left.get(str(error), 0) + 1
        if progress:
            progress(i + 1, len(wanted))
    return found, left


@lru_cache(maxsize=8192)
def _predicted_alike(point: PublishedPoint, mode: str, rate: float) -> Predicted:
    return predict(Case(point, mode, rate))


def _predicted(point: PublishedPoint, mode: str, rate: float) -> Predicted:
    """Return a prediction; points that differ in their figure or name alone share one."""
    return _predicted_alike(replace(point, id="", section="", value=1.0), mode, rate)


def _compared(point: PublishedPoint, found: Predicted) -> ComparedPoint:
    ratio = found.value / point.value
    assumed = "; ".join(part for part in (point.document.assumed, point.assumed) if part)
    verified = point.verified and point.document.verified
    return ComparedPoint(
        id=point.id, quantity=point.quantity, predicted=found.value, measured=point.value,
        log_error=found.log_error, classes=classes_of(point),
        source=f"{point.document.title}, {point.section} ({point.document.date})"
               + ("" if verified else "; unverified"),
        assumed=assumed,
        explanation=explain(point, ratio, found), counts=verified and point.throughput)


def classes_of(point: PublishedPoint) -> dict[str, str]:
    """Return the classes of a point."""
    model = load_model(point.model)
    sparse = is_moe(model)
    billions = active_parameters(model) / 1e9
    size = "to 10B active" if billions <= 10 else "above 10B active"
    return {"hardware": point.hardware, "model class": f"{'MoE' if sparse else 'dense'}, {size}",
            "model": point.model, "regime": point.regime, "document": point.document.key,
            "calibration": calibration_of(point.hardware)}


@lru_cache
def calibration_of(hardware: str) -> str:
    """Return whether the hardware's kernels were measured, in part, or not.

    ``measured``, ``in part`` (others borrowed from a relative), ``borrowed`` or ``uncalibrated``.
    """
    found = load_calibration(load_hardware(hardware))
    for word in ("borrowed", "uncalibrated"):
        if found.provenance.startswith(word):
            return word
    return "measured" if found.rest is None else "in part"


@lru_cache
def _rules() -> list[dict[str, object]]:
    rules: list[dict[str, object]] = read_toml(EXPLANATIONS)["explanations"]
    return rules


def explain(point: PublishedPoint, ratio: float, found: Predicted) -> str:
    """Return the known cause that fits an error, or that there is none.

    Args:
        point: published.
        ratio: predicted over published.
        found: the prediction.
    """
    layout = point.layout
    facts = {**classes_of(point), "bottleneck": found.bottleneck,
             "quantity": point.quantity}
    numbers = {"tp": int(layout.tp) if layout else 1, "pp": int(layout.pp) if layout else 1,
               "dp": int(layout.dp) if layout else 1}
    for rule in _rules():
        if not float(str(rule.get("above", 0))) <= ratio <= float(str(rule.get("below", 1e9))):
            continue
        if any(n in rule and numbers[n] < int(str(rule[n])) for n in numbers):
            continue
        if all(facts[n] in rule[n] for n in facts if n in rule):  # type: ignore[operator]
            return str(rule["because"])
    return "not explained; the interval stands for it"


def aims(points: Sequence[ComparedPoint]) -> list[Aim]:
    """Return what is reached of the aims."""
    counted = [p for p in points if p.counts]
    own = [p for p in counted if p.classes["calibration"] == "measured"]
    other = [p for p in counted if p.classes["calibration"] != "measured"]
    return [
        Aim(f"median error of throughput, {len(own)} verified points, hardware with its own "
            "kernel calibration", summarise(own).median, AIM_CALIBRATED),
        Aim(f"median error of throughput, {len(other)} verified points, hardware with part of one "
            "or none", summarise(other).median, AIM_BORROWED),
        Aim("share of verified points inside the 90 % interval", summarise(counted).inside, 0.85,
            least=True),
    ]


def comparison(
    points: Sequence[PublishedPoint] | None = None, key: str = "published",
    title: str = "Published results", modes: Sequence[str] = (KERNELS, ROOFLINE, ENGINE),
    progress: Progress | None = None,
) -> Comparison:
    """Return the comparison with the published figures, its first mode with all points.

    Args:
        points: None for the project's table.
        key, title: of the comparison.
        modes: calibrations to compare, the main one first.
        progress: called with (done, total) over all modes.
    """
    total = len(published_points() if points is None else points)

    def step(k: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, _: progress(k * total + done, len(modes) * total)

    every = published_points() if points is None else points
    rates = [p for p in every if p.throughput]
    runs = [compare(rates if k else every, mode, progress=step(k))
            for k, mode in enumerate(modes)]
    found, left = runs[0]
    about = ("Throughput and latency that vendors and authors have published, predicted from the "
             "calibrations of kernels alone: nothing is fitted to these points, and every figure "
             "of the engine presets that was fitted to other serving points is neutral. Batches "
             "are what fits the memory; regimes are simulated as their documents describe them.")
    return Comparison(key=key, title=title, about=about, points=found, aims=aims(found),
                      classes=CLASSES, left_out=left,
                      tables={"With and without calibration (throughput)": _modes(modes, runs)})


def _modes(
    modes: Sequence[str], runs: Sequence[tuple[list[ComparedPoint], dict[str, int]]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    columns = ("hardware", *(f"{CALIBRATIONS[m]}: median (bias)" for m in modes))
    rows: dict[str, list[str]] = {}
    for points, _ in runs:
        counted = [p for p in points if p.counts]
        groups = {"all": summarise(counted), **by_class(counted, "hardware")}
        for name, s in groups.items():
            rows.setdefault(f"{name} ({s.points})", []).append(
                f"{100 * s.median:.1f} % ({100 * s.bias:+.1f} %)")
    return columns, [[name, *cells] for name, cells in rows.items()]
