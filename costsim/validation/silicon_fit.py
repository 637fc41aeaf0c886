"""Fit the few figures each engine has to the even rows of the measured serving points.

Free are, per engine: the time of kernels in captured graphs over that of kernels measured one by
one (on accelerators with and without native fp4), the time of a layer that no kernel covers (more
with experts, and with data-parallel attention), host time per step and per running request, the
share of communication that is hidden, and the front end's time. None is per model, per accelerator
or per row. Runs that draft, or whose deployment is partly assumed, are not fitted on.

A surrogate that is linear in these figures stands for the engine model while fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from costsim.engine.deployment import Deployment
from costsim.engine.settings import EngineSettings
from costsim.engine.speculation import tokens_per_step
from costsim.engine.steady_state import closed_loop
from costsim.engine.step import StepTime, step_time
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.validation.silicon import (
    Settings,
    columns,
    deployment_of,
    grouped,
    pools_of,
    predict,
    settings_of,
    with_figures,
)
from costsim.validation.silicon_flags import benchmark_of
from costsim.validation.silicon_points import ServingPoint, distinct

FIGURES = ("kernel_time_factor", "kernel_time_factor_fp4", "layer_gap_s", "expert_gap_s",
           "exchange_gap_s", "host_step_s", "host_request_s", "overlap_communication",
           "frontend_s", "sync_step_s", "sync_request_s")
_START = np.array([0.9, 0.9, 1e-5, 1e-5, 1e-5, 5e-4, 1e-5, 0.3, 0.03, 1e-3, 1e-5])
_LOW = np.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
_HIGH = np.array([1.5, 1.5, 2e-4, 2e-4, 2e-4, 1e-2, 1e-3, 0.7, 1.0, 1e-2, 1e-3])
_SCALE = np.array([0.1, 0.1, 1e-5, 1e-5, 1e-5, 1e-3, 1e-5, 0.3, 0.03, 1e-3, 1e-5])
# TTFT of a benchmark depends on its arrivals more than on the engine: it weighs less.
_TTFT_WEIGHT = 0.3
# Fewer rows than this say nothing of how wide an interval must be.
_FEWEST_ERRORS = 20
_TOKENIZE_S = (1e-6, 4e-6, 8e-6, 16e-6)
_LATENT_S = (0.0, 1.2e-3, 2e-3, 3e-3)
_NETWORK = ("all-reduce", "expert dispatch", "expert combine", "expert exchange",
            "gather logits", "context-parallel exchange")


@dataclass(frozen=True)
class Parts:
    """What the surrogate needs of each row, computed with neutral figures.

    Args:
        kernels_s, network_s, attention_s: of a decode step, all kernels, and the collectives and
            attention among them.
        layers, experts: layers, and those with experts.
        running: requests of the fullest attention group.
        extra_s: what prompts add to all decode steps of a request; steps: how many those are.
        own_s: of TTFT, without the steps waited for.
        looks: steps waited for before the prompt is seen, or taken with others.
        sync: whether steps are not scheduled ahead.
        fp4, dp: whether the accelerator has native fp4, and attention is data parallel.
        tpot_s, ttft_s: measured; ttft_s is NaN where it is not fitted.
    """

    kernels_s: NDArray[np.float64]
    network_s: NDArray[np.float64]
    attention_s: NDArray[np.float64]
    layers: NDArray[np.float64]
    experts: NDArray[np.float64]
    running: NDArray[np.float64]
    extra_s: NDArray[np.float64]
    steps: NDArray[np.float64]
    own_s: NDArray[np.float64]
    looks: NDArray[np.float64]
    sync: NDArray[np.float64]
    fp4: NDArray[np.float64]
    dp: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]


def neutral(settings: EngineSettings) -> EngineSettings:
    """Return settings with all fitted figures at their neutral values."""
    return replace(settings, kernel_time_factor=1.0, kernel_time_factor_fp4=-1.0, layer_gap_s=0.0,
                   expert_gap_s=0.0, exchange_gap_s=0.0, host_step_s=0.0, host_request_s=0.0,
                   overlap_communication=0.0, frontend_s=0.0, tokenize_s=0.0,
                   prompt_latent_s=0.0, sync_step_s=0.0, sync_request_s=0.0)


def fitted_on(
    points: Sequence[ServingPoint], engine: str, drafting: bool = False
) -> list[ServingPoint]:
    """Return an engine's rows to fit on: even, each run once, nothing assumed, drafting or not."""
    rows = [p for p in points if p.fit and p.engine == engine and not p.assumed
            and (p.draft_tokens > 0) == drafting]
    return list(distinct(rows))


def parts_of(points: Sequence[ServingPoint], settings: Settings) -> Parts:
    """Return the surrogate's parts of the rows that the engine model can price."""
    found: list[NDArray[np.float64]] = []
    for members in grouped(points, settings):
        try:
            rows = _aggregated if members[0].layout is not None else _disaggregated
            found.append(rows(members, settings))
        except InputError:
            continue
    if not found:
        raise InputError("no row to fit on")
    return Parts(*np.concatenate(found, axis=1))


def _aggregated(points: Sequence[ServingPoint], settings: Settings) -> NDArray[np.float64]:
    layout = points[0].layout
    assert layout is not None
    deployment = deployment_of(points[0], layout, settings)
    batch, isl, osl = columns(points)
    found = closed_loop(deployment, batch, isl, osl, benchmark_of(points[0]))
    steps = np.maximum(osl - 1.0, 1.0)
    extra = np.maximum(found.tpot_s - found.decode.seconds, 0.0) * steps
    pace = found.tpot_s * tokens_per_step(deployment.settings.speculation)
    own = np.maximum(found.ttft_s - found.waited_steps * pace, 0.0)
    ttft = np.where(found.fits, [p.ttft_s for p in points], np.nan)
    inside = np.minimum(batch, np.maximum(found.max_batch, 1.0))
    return _stacked(points, deployment, found.decode, inside / float(layout.dp), extra, steps, own,
                    found.waited_steps, float(layout.dp > 1), ttft)


def _disaggregated(points: Sequence[ServingPoint], settings: Settings) -> NDArray[np.float64]:
    pools = pools_of(points, settings)
    batch = np.maximum(pools.loop.decoding / pools.decode_replicas, 1.0)
    _, isl, osl = columns(points)
    decode = step_time(pools.decode, decode_requests=batch, decode_context=isl + 0.5 * osl)
    none = np.zeros_like(batch)
    groups = float(pools.decode.layout.dp)
    return _stacked(points, pools.decode, decode, batch / groups, none, np.maximum(osl - 1.0, 1.0),
                    none, none, float(groups > 1), none + np.nan)


def _stacked(
    points: Sequence[ServingPoint], deployment: Deployment, decode: StepTime, running: Any,
    extra: Any, steps: Any, own: Any, looks: Any, dp: float, ttft: Any,
) -> NDArray[np.float64]:
    shape = (len(points),)
    network = sum((np.asarray(v, float) for n, v in decode.by_operator.items() if n in _NETWORK),
                  np.zeros(shape))
    attention = decode.by_operator.get("attention (decode)", 0.0)
    layers = float(sum(each.count for each in deployment.model.layers))
    experts = float(sum(each.count for each in deployment.model.layers
                        if each.ffn and each.ffn.kind == "moe"))
    fp4 = float(load_hardware(points[0].hardware).supports("fp4"))
    tpot = [p.tpot_s for p in points]
    return np.stack([np.broadcast_to(np.asarray(v, float), shape) for v in (
        decode.seconds, network, attention, layers, experts, running, extra, steps, own, looks,
        float(not deployment.settings.async_scheduling), fp4, dp, tpot, ttft)])


def surrogate(x: NDArray[np.float64], parts: Parts) -> tuple[Any, Any]:
    """Return TPOT and TTFT of the rows at some figures (order of `FIGURES`)."""
    plain, fp4, gap, gap_moe, gap_dp, host, per_request, overlap, front, sync, sync_each = x
    factor = np.where(parts.fp4 > 0, fp4, plain)
    hidden = np.minimum(overlap * parts.network_s, parts.kernels_s - parts.network_s)
    step = factor * (parts.kernels_s - parts.attention_s - hidden) + parts.attention_s
    step = step + gap * parts.layers + (gap_moe + gap_dp * parts.dp) * parts.experts
    step = step + host + per_request * parts.running
    step = step + parts.sync * (sync + sync_each * parts.running)
    tpot = step + parts.extra_s / parts.steps
    ttft = parts.own_s + parts.looks * tpot + front
    return np.maximum(tpot, 1e-6), np.maximum(ttft, 1e-6)


def fit_engine(parts: Parts) -> dict[str, float]:
    """Return the figures of one engine that fit its rows best (soft L1 on log errors)."""
    timed = np.isfinite(parts.ttft_s)

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        tpot, ttft = surrogate(x, parts)
        return np.concatenate([np.log(tpot / parts.tpot_s),
                               _TTFT_WEIGHT * np.log(ttft[timed] / parts.ttft_s[timed])])

    found = least_squares(residual, _START, bounds=(_LOW, _HIGH), x_scale=_SCALE,
                          loss="soft_l1", f_scale=0.1)
    figures = {name: float(v) for name, v in zip(FIGURES, found.x, strict=True)}
    without = {"sync_step_s": 0.0, "sync_request_s": 0.0}
    return figures if np.any(parts.sync) else figures | without


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


def fit_drafting(points: Sequence[ServingPoint], settings: EngineSettings) -> dict[str, float]:
    """Return the host time that drafting adds to a step, and to it for each running request.

    Args:
        points: drafting rows of one engine that may be fitted on.
        settings: of the engine, fitted already.
    """
    plain = replace(settings, draft_host_s=0.0, draft_request_s=0.0)
    found, _ = predict(points, {settings.name: plain})
    engine = np.array([p.tpot_s for p in found])
    measured = np.array([p.point.tpot_s for p in found])
    tokens = np.array([tokens_per_step(settings_of(p.point, {settings.name: plain}).speculation)
                       for p in found], float)
    running = np.array([_running(p.point) for p in found])

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        added = (x[0] + x[1] * running) / tokens
        return np.asarray(np.log((engine + added) / measured))

    best = least_squares(residual, [1e-3, 1e-5], bounds=([0.0, 0.0], [0.05, 0.01]),
                         x_scale=[1e-3, 1e-5], loss="soft_l1", f_scale=0.1)
    return {"draft_host_s": float(best.x[0]), "draft_request_s": float(best.x[1])}


def _running(point: ServingPoint) -> float:
    """Return the requests of one attention group."""
    pool = point.decode
    if pool is None:
        return point.concurrency / float(point.layout.dp if point.layout else 1)
    return min(point.concurrency / (pool.workers or 1), pool.slots or np.inf) / float(
        pool.layout.dp)


def fit_first_token(points: Sequence[ServingPoint], settings: EngineSettings) -> dict[str, float]:
    """Return what only the time to first token shows: the front end, and launches of prompts.

    Args:
        points: rows of one engine and one pool that may be fitted on.
        settings: of the engine, fitted already.
    """
    def error(tokenize: float, latent: float) -> tuple[float, dict[str, float]]:
        figures = {"tokenize_s": tokenize, "prompt_latent_s": latent, "frontend_s": 0.0}
        found, _ = predict(points, with_figures({settings.name: settings},
                                                {settings.name: figures}))
        measured = np.array([p.point.ttft_s for p in found])
        engine = np.array([p.ttft_s for p in found])
        best = least_squares(lambda x: np.log((engine + x) / measured), [0.02],
                             bounds=([0.0], [1.0]), loss="soft_l1", f_scale=0.1)
        return float(best.cost), figures | {"frontend_s": float(best.x[0])}

    first = min((error(t, _LATENT_S[1]) for t in _TOKENIZE_S), key=lambda choice: choice[0])[1]
    rest = (error(first["tokenize_s"], latent) for latent in _LATENT_S)
    return min(rest, key=lambda choice: choice[0])[1]


def fit_errors(points: Sequence[ServingPoint], settings: Settings) -> dict[str, dict[str, float]]:
    """Return the log errors each engine adds to its kernels', from the rows for fitting."""
    none = {"log_error_tpot": 0.0, "log_error_ttft": 0.0, "log_error_pools_tpot": 0.0,
            "log_error_pools_ttft": 0.0, "log_error_drafting": 0.0}
    points = [p for p in points if not p.assumed]
    bare = with_figures(settings, dict.fromkeys(settings, none))
    found, _ = predict([p for p in points if p.fit], bare)
    figures: dict[str, dict[str, float]] = {}
    for engine in settings:
        own = [p for p in found if p.point.engine == engine]
        figures[engine] = own_errors = {}
        for pools, name in ((False, "log_error"), (True, "log_error_pools")):
            plain = [p for p in own if (p.point.layout is None) == pools
                     and not p.point.draft_tokens]
            for quantity in ("tpot", "ttft"):
                if len(plain) >= _FEWEST_ERRORS:
                    own_errors[f"{name}_{quantity}"] = extra_log_error(
                        [getattr(p, f"error_{quantity}") for p in plain],
                        [getattr(p, f"log_error_{quantity}") for p in plain])
        drafting = [p for p in own if p.point.draft_tokens]
        if len(drafting) >= _FEWEST_ERRORS:
            level = own_errors["log_error_tpot"], own_errors["log_error_pools_tpot"]
            own_errors["log_error_drafting"] = extra_log_error(
                [p.error_tpot for p in drafting],
                [float(np.hypot(p.log_error_tpot, level[p.point.layout is None]))
                 for p in drafting])
    return figures


def fit(
    points: Sequence[ServingPoint], settings: Settings,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the figures of every engine, fitted to the rows that may be fitted on.

    Args:
        points: from `read_points`; only those of `fitted_on` are used, for drafting those that
            draft, and for the errors all even ones.
        settings: the presets; their fitted figures are ignored.
        progress: called with the engine's name.
    """
    plain = {name: neutral(s) for name, s in settings.items()}
    figures = {}
    for engine in plain:
        if progress:
            progress(engine)
        rows = fitted_on(points, engine)
        if rows:
            figures[engine] = fit_engine(parts_of(rows, plain))
            whole = [p for p in rows if p.layout is not None]
            figures[engine] |= fit_first_token(whole, with_figures(settings, figures)[engine])
        drafting = fitted_on(points, engine, drafting=True)
        if drafting:
            fitted = with_figures(settings, figures)[engine]
            figures[engine] |= fit_drafting(drafting, fitted)
    errors = fit_errors(points, with_figures(settings, figures))
    return {name: {**figures[name], **errors.get(name, {})} for name in figures}
