"""Refits an engine's few overheads to a user's runs, and shows what that does on runs left out."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim import library
from costsim.engine.deployment import Deployment
from costsim.engine.presets import KIND, list_engines
from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.validation.benchmarks.run import Run, part_of
from costsim.validation.user_benchmark import Benchmark, compare_runs, pair, predict, steady_states

# What is fitted, its bounds, and how far from the preset it is thought to be: the less the runs
# say, the nearer to the preset it stays. Times in seconds.
FIGURES = ("kernel_time_factor", "host_step_s", "frontend_s")
_LOW, _HIGH = (0.3, 0.0, 0.0), (3.0, 0.1, 5.0)
_PRIOR = (0.25, 1e-3, 0.05)
# Scatter that single runs show around a good model: they weigh as one over it.
_SCATTER = {"tpot_s": 0.04, "ttft_s": 0.12, "e2e_s": 0.06}
# Fits to the steady state, each corrected by what the replay under the last one says.
_ROUNDS = 3
# A TTFT that is mostly the wait for a turn says how fast the engine is, not its front end.
_QUEUED = 0.6
# Held-out runs from which their own scatter says how sure the fitted engine is.
_FEWEST = 3


@dataclass(frozen=True)
class Refit:
    """What a refit found.

    Args:
        name: of the fitted preset.
        base: preset it started from.
        before, after: value of each figure.
        fitted_on: runs that were fitted.
        held_out: how runs were left out, or why none was.
        before_fit, after_fit: the fitted runs under the preset and under the fit.
        before_held, after_held: the same for runs that were not fitted; None where there are none.
        scatter: the engine's own log errors as the held-out runs show them, where they are enough.
        file: of the preset.
    """

    name: str
    base: str
    before: dict[str, float]
    after: dict[str, float]
    fitted_on: int
    held_out: str
    before_fit: Benchmark
    after_fit: Benchmark
    before_held: Benchmark | None
    after_held: Benchmark | None
    scatter: dict[str, float]
    file: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        parts = {key: getattr(self, key) for key in
                 ("before_fit", "after_fit", "before_held", "after_held")}
        return {
            "name": self.name, "base": self.base, "before": self.before, "after": self.after,
            "scatter": self.scatter,
            "fitted_on": self.fitted_on, "held_out": self.held_out,
            "file": str(self.file) if self.file else None,
            **{key: part.summary() if part else None for key, part in parts.items()},
            "held_runs": [r.as_dict() for r in self.after_held.runs] if self.after_held else []}


def split(runs: Sequence[Run]) -> tuple[list[Run], list[Run], str]:
    """Return runs to fit, runs to report on, and in words how they were chosen."""
    if len(runs) > 1:
        return (list(runs[::2]), list(runs[1::2]),
                f"{len(runs[1::2])} of {len(runs)} runs, every second one in the order of load")
    only = runs[0]
    if only.detail is not None and len(only.detail) >= 8:
        order = np.random.default_rng(0).permutation(len(only.detail))
        half = len(order) // 2
        return ([part_of(only, np.sort(order[:half]), "half fitted")],
                [part_of(only, np.sort(order[half:]), "half held out")],
                "half of the requests of the only run: both halves saw one load, so this shows "
                "noise and not how the fit holds at another load")
    return list(runs), [], "nothing can be held out: one run, and no single requests in the file"


def refit(
    runs: Sequence[Run], deployment: Deployment, name: str, replicas: int = 1
) -> Refit:
    """Return a fit of `FIGURES` to some of the runs, judged on the others.

    Args:
        runs: measured, in the order of load.
        deployment: what was measured.
        name: of the preset to make.
        replicas: of the deployment that shared the load.

    Raises:
        InputError: no run has a latency to fit to.
    """
    fitting, held, how = split(runs)
    start = np.array([getattr(deployment.settings, figure) for figure in FIGURES])
    found = _solve(fitting, deployment, start, replicas)
    fitted = _figures(deployment, found)
    fitted = _with(fitted, {"name": name, "kernels": deployment.settings.kernels
                            or deployment.settings.name})
    after = compare_runs(held, fitted, replicas) if held else None
    return Refit(
        name, deployment.settings.name, dict(zip(FIGURES, map(float, start), strict=True)),
        dict(zip(FIGURES, map(float, found), strict=True)), len(fitting), how,
        compare_runs(fitting, deployment, replicas), compare_runs(fitting, fitted, replicas),
        compare_runs(held, deployment, replicas) if held else None, after, _scatter(after))


def _with(deployment: Deployment, changes: Mapping[str, Any]) -> Deployment:
    return deployment.with_changes(settings=replace(deployment.settings, **changes))


def _solve(runs: Sequence[Run], deployment: Deployment, start: Any, replicas: int) -> Any:
    """Return the figures that bring the steady states of runs to what was measured.

    The simulator is too rough for derivatives. Each round fits the steady state, times the ratio
    of the simulated run to it under the figures of the round before.
    """
    found = start
    for _ in range(_ROUNDS):
        found = _round(runs, deployment, start, found, replicas)
    return found


def _round(
    runs: Sequence[Run], deployment: Deployment, start: Any, last: Any, replicas: int
) -> Any:
    from scipy.optimize import least_squares

    now = _figures(deployment, last)
    replays = [predict(run, now, replicas)[0] for run in runs]
    in_flight = [each.in_flight / replicas for each in replays]
    at = steady_states(runs, in_flight, now)
    wanted = {}
    for metric in ("tpot_s", "e2e_s", "ttft_s"):
        steady = np.broadcast_to(np.asarray(getattr(at, metric), float), len(runs))
        both = [None if metric == "ttft_s" and p.queue_share > _QUEUED else pair(r, p, metric)
                for r, p in zip(runs, replays, strict=True)]
        wanted[metric] = np.array([np.nan if b is None else b[0] / (b[1] / s)
                                   for b, s in zip(both, steady, strict=True)])
    wanted.pop("e2e_s" if np.isfinite(wanted["tpot_s"]).any() else "tpot_s")
    if not any(np.isfinite(v).any() for v in wanted.values()):
        raise InputError("no run has a TTFT, TPOT or end-to-end latency to fit to")
    prior = np.array(_PRIOR)

    def residual(x: Any) -> Any:
        at = steady_states(runs, in_flight, _figures(deployment, x))
        parts = []
        for metric, values in wanted.items():
            some = np.isfinite(values)
            predicted = np.broadcast_to(np.asarray(getattr(at, metric), float), values.shape)
            parts.append(np.log(predicted[some] / values[some]) / _SCATTER[metric])
        away = (x - start) / prior
        away[0] = math.log(x[0] / start[0]) / prior[0]
        return np.concatenate([*parts, away])

    inside = np.clip(start, np.array(_LOW) + 1e-9, np.array(_HIGH) - 1e-9)
    found = least_squares(residual, inside, bounds=(_LOW, _HIGH), loss="soft_l1",
                          x_scale=[0.1, 1e-3, 1e-2])
    return found.x


def _figures(deployment: Deployment, values: Any) -> Deployment:
    return _with(deployment, dict(zip(FIGURES, map(float, values), strict=True)))


def _scatter(held: Benchmark | None) -> dict[str, float]:
    """Return the engine's own error as the held-out runs under the fit show it."""
    found: dict[str, float] = {}
    if held is None or len(held.runs) < _FEWEST:
        return found
    for metric, figure in (("tpot_s", "log_error_tpot"), ("ttft_s", "log_error_ttft")):
        errors = [math.log(row.predicted / row.measured) for r in held.runs
                  for row in r.rows if row.metric == metric]
        if len(errors) >= _FEWEST:
            # A new run scatters by more than the few that the mean square was taken of.
            few = math.sqrt((len(errors) + 1) / (len(errors) - 1))
            found[figure] = max(few * float(np.sqrt(np.mean(np.square(errors)))), 0.03)
    return found


def preset_path(name: str, base: str) -> Path:
    """Return the file of the user's own preset of a name.

    Args:
        name: of the preset; base: that it extends.

    Raises:
        InputError: the name holds other characters, a preset of that name ships or is the base, or
            the base cannot be found by its name.
    """
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise InputError(f"name '{name}': only letters, digits, '-', '_' and '.'")
    path = library.user_home() / KIND / f"{name}.toml"
    if base not in list_engines():
        raise InputError(f"engine '{base}': a fitted engine extends it by name; put its file into "
                         f"{path.parent} first")
    if name == base:
        raise InputError(f"name '{name}': the fitted engine extends that one; take another")
    if name in list_engines() and not path.is_file():
        raise InputError(f"name '{name}': an engine of that name exists; take another")
    return path


def save(found: Refit, sources: str) -> Refit:
    """Write the fitted preset, which ``--engine NAME`` finds; returns the refit with its file.

    Args:
        found: the refit.
        sources: what it was fitted to, in words.
    """
    path = preset_path(found.name, found.base)
    d = found.after_fit.deployment
    today = datetime.date.today().isoformat()
    words = (f"'costsim calibrate --from' on {today}, {sources}: ")
    fitted = _quoted(f"{words}fitted to {found.fitted_on} run(s)")
    held = _quoted(f"{words}scatter of the runs held out")
    title = _quoted(f"{found.base} as measured with {d.model.name} on {d.hardware.name} "
                    f"({d.layout})")
    lines = [f"extends = {_quoted(found.base)}", f"title = {title}", "", "[settings]",
             *(f"{key} = {value:.6g}" for key, value in {**found.after, **found.scatter}.items()),
             "", "[sources]", *(f"{key} = {fitted}" for key in found.after),
             *(f"{key} = {held}" for key in found.scatter), ""]
    return replace(found, file=write_atomically(path, "\n".join(lines)))


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
