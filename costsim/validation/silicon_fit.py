"""Fit the few figures each engine has to the even rows of the measured serving points.

Free are, per engine: the time of kernels in captured graphs over that of kernels measured one by
one, host time per step and per running request, the share of communication that is hidden, how
clustered the prompts of the benchmark are, and the front end's time. None is per model, per
accelerator or per row. Rows of disaggregated deployments are not fitted on.

A surrogate that is linear in these figures stands for the engine model while fitting; it is rebuilt
from the engine model at each round, so that both agree where the fit ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import operating_point
from costsim.errors import InputError
from costsim.validation.silicon import Settings, deployment_of, predict, with_figures
from costsim.validation.silicon_points import ServingPoint

FIGURES = ("kernel_time_factor", "host_step_s", "host_request_s", "overlap_communication",
           "prompt_clustering", "frontend_s")
_START = np.array([0.9, 5e-4, 1e-5, 0.3, 0.2, 0.03])
_LOW = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
_HIGH = np.array([1.5, 1e-2, 1e-3, 1.0, 1.0, 1.0])
_SCALE = np.array([0.1, 1e-3, 1e-5, 0.3, 0.3, 0.03])
# TTFT of a benchmark depends on its arrivals more than on the engine: it weighs less.
_TTFT_WEIGHT = 0.3
_NETWORK = ("all-reduce", "expert dispatch", "expert combine", "expert exchange",
            "gather logits", "context-parallel exchange")


@dataclass(frozen=True)
class Parts:
    """What the surrogate needs of each row, computed with neutral figures."""

    kernels_s: NDArray[np.float64]
    network_s: NDArray[np.float64]
    extra_s: NDArray[np.float64]
    own_s: NDArray[np.float64]
    others_s: NDArray[np.float64]
    running: NDArray[np.float64]
    osl: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]


def neutral(settings: EngineSettings) -> EngineSettings:
    """Return settings with all fitted figures at their neutral values."""
    return replace(settings, kernel_time_factor=1.0, host_step_s=0.0, host_request_s=0.0,
                   overlap_communication=0.0, prompt_clustering=0.0, frontend_s=0.0)


def parts_of(points: Sequence[ServingPoint], settings: Settings) -> Parts:
    """Return the surrogate's parts of the aggregated rows that the engine model can price."""
    groups: dict[tuple[Any, ...], list[ServingPoint]] = {}
    for p in points:
        groups.setdefault((p.model, p.hardware, p.weights, p.layout), []).append(p)
    columns: list[list[float]] = []
    for members in groups.values():
        try:
            columns += _rows(members, settings)
        except InputError:
            continue
    if not columns:
        raise InputError("no row to fit on")
    return Parts(*np.array(columns, float).T)


def _rows(points: Sequence[ServingPoint], settings: Settings) -> list[list[float]]:
    layout = points[0].layout
    assert layout is not None
    deployment = deployment_of(points[0], layout, settings)
    batch = np.array([p.concurrency for p in points], float)
    isl = np.array([p.isl for p in points], float)
    osl = np.array([p.osl for p in points], float)
    found = operating_point(deployment, batch, isl, osl)

    def column(value: Any) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(value, float), batch.shape)

    network = sum((column(v) for n, v in found.decode.by_operator.items() if n in _NETWORK),
                  np.zeros_like(batch))
    decode = column(found.decode.seconds)
    extra = np.maximum(column(found.tpot_s) - decode, 0.0) * osl
    own = np.maximum(column(found.ttft_s) - 0.5 * decode, 0.0)
    others = extra * np.maximum(batch - 1.0, 0.0) / np.maximum(batch, 1.0)
    rows = np.stack([decode, network, extra, own, others, batch / float(layout.dp), osl,
                     np.array([p.tpot_s for p in points]), np.array([p.ttft_s for p in points])])
    return [list(map(float, row)) for row in rows.T]


def surrogate(x: NDArray[np.float64], parts: Parts) -> tuple[Any, Any]:
    """Return TPOT and TTFT of the rows at some figures (order of `FIGURES`).

    Clustered prompts move the time that decodes lose to others' prompts into the wait for the first
    token; the sum over a request's life stays.
    """
    factor, host, per_request, overlap, clustering, frontend = x
    kernels = factor * (parts.kernels_s - overlap * parts.network_s)
    step = kernels + host + per_request * parts.running
    moved = np.minimum(clustering, 1.0) * factor * parts.others_s
    tpot = step + (factor * parts.extra_s - moved) / parts.osl
    ttft = factor * parts.own_s + 0.5 * step + moved + frontend
    return np.maximum(tpot, 1e-6), np.maximum(ttft, 1e-6)


def fit_engine(parts: Parts) -> dict[str, float]:
    """Return the figures of one engine that fit its rows best (soft L1 on log errors)."""

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        tpot, ttft = surrogate(x, parts)
        return np.concatenate([np.log(tpot / parts.tpot_s),
                               _TTFT_WEIGHT * np.log(ttft / parts.ttft_s)])

    found = least_squares(residual, _START, bounds=(_LOW, _HIGH), x_scale=_SCALE,
                          loss="soft_l1", f_scale=0.1)
    return {name: float(v) for name, v in zip(FIGURES, found.x, strict=True)}


def extra_log_error(errors: Sequence[float], known: Sequence[float], level: float = 0.90) -> float:
    """Return the standard deviation to add in quadrature so that ``level`` of the rows lie inside
    their interval.

    Args:
        errors: log(predicted / measured).
        known: standard deviations that the kernels alone give.
        level: of the interval.
    """
    e, s = np.abs(np.array(errors)), np.array(known)
    low, high = 0.0, 3.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        inside = np.mean(e <= 1.6448536 * np.hypot(s, middle))
        low, high = (low, middle) if inside >= level else (middle, high)
    return float(high)


def fit_errors(points: Sequence[ServingPoint], settings: Settings) -> dict[str, dict[str, float]]:
    """Return the log errors each engine adds to its kernels', from the rows for fitting."""
    bare = {n: replace(s, log_error_tpot=0.0, log_error_ttft=0.0) for n, s in settings.items()}
    rows = [p for p in points if p.fit and p.layout is not None]
    found, _ = predict(rows, bare)
    figures = {}
    for engine in settings:
        own = [p for p in found if p.point.engine == engine]
        if own:
            figures[engine] = {
                "log_error_tpot": extra_log_error([p.error_tpot for p in own],
                                                  [p.log_error_tpot for p in own]),
                "log_error_ttft": extra_log_error([p.error_ttft for p in own],
                                                  [p.log_error_ttft for p in own]),
            }
    return figures


def fit(
    points: Sequence[ServingPoint], settings: Settings,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the figures of every engine, fitted to the rows that may be fitted on.

    Args:
        points: from `read_points`; only aggregated rows with ``fit`` are used.
        settings: the presets; their fitted figures are ignored.
        progress: called with the engine's name.
    """
    plain = {name: neutral(s) for name, s in settings.items()}
    figures = {}
    for engine in plain:
        if progress:
            progress(engine)
        rows = [p for p in points if p.fit and p.layout is not None and p.engine == engine]
        if rows:
            figures[engine] = fit_engine(parts_of(rows, plain))
    errors = fit_errors(points, with_figures(settings, figures))
    return {name: {**figures[name], **errors.get(name, {})} for name in figures}
