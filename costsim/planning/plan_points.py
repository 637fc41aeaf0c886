"""Efficient operating points of a model on each kind of accelerator, within latency targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.search import Found, search
from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import operating_point
from costsim.errors import DoesNotFitError
from costsim.hardware.accelerator import Hardware
from costsim.models.architecture import Model, is_moe
from costsim.planning.cached import cached_time_share
from costsim.planning.targets import Target

BATCHES = np.unique(np.round(2.0 ** (np.arange(0, 49) / 4.0))).astype(int)
# One-sided normal quantile of 99 %: requests in flight fluctuate as a Poisson count.
_Z99 = 2.326
_FINE = 9  # batches between two of the grid, where the limit is found


@dataclass(frozen=True)
class Candidate:
    """One way to build a replica, with what it carries.

    Args:
        deployment: model, hardware, layout, precision, engine.
        batch_limit: most requests in flight within the targets.
        batch: mean in flight at which the limit is seldom passed.
        requests_per_s: of one replica at ``batch``.
        ttft_s, tpot_s: at ``batch_limit``.
        input_time_share: of busy time, spent on prompts.
        activity: share of the dynamic power drawn at ``batch``.
        log_error: standard deviation of log(actual / predicted) throughput.
        bottleneck: what limits it.
        cached_share: of the time spent on prompts, on tokens found in the prefix cache.
        role: ``both``, or ``disaggregated`` where prompts are read by other replicas.
        prefill, decode: replicas of each role in a disaggregated unit (0, 0 otherwise).
    """

    deployment: Deployment
    batch_limit: float
    batch: float
    requests_per_s: float
    ttft_s: float
    tpot_s: float
    input_time_share: float
    activity: float
    log_error: float
    bottleneck: str
    cached_share: float = 0.0
    role: str = "both"
    prefill: int = 0
    decode: int = 0

    @property
    def chips(self) -> int:
        """Accelerators of one replica (of the whole unit where disaggregated)."""
        return int(self.deployment.accelerators) * max(1, self.prefill + self.decode)

    @property
    def name(self) -> str:
        """Hardware, layout and precision in a few words."""
        d = self.deployment
        text = f"{d.hardware.name} {d.layout} {precision_name(d)}"
        return text + (f" {self.prefill}P{self.decode}D" if self.prefill else "")


@dataclass(frozen=True)
class Points:
    """What a search found.

    Args:
        candidates: not dominated in chips and capacity on their hardware, best first.
        considered: operating points priced.
        lost: hardware that has none, and why.
    """

    candidates: tuple[Candidate, ...]
    considered: int
    lost: dict[str, str]


def precision_name(deployment: Deployment) -> str:
    """Return weights and cache data types in a word, such as ``fp8/kv-fp8``."""
    p = deployment.precision
    weights = p.experts if is_moe(deployment.model) else p.ffn
    return weights if p.kv == "bf16" else f"{weights}/kv-{p.kv}"


def mean_batch(limit: Any, z: float = _Z99) -> Any:
    """Return the mean in flight B with B + z·√B = limit.

    Requests in flight in an open system with many servers are Poisson (M/G/∞), so that a mean of
    B stays below B + z·√B with the probability of z: the square-root rule of staffing.
    """
    root = 0.5 * (np.sqrt(z * z + 4.0 * np.asarray(limit, float)) - z)
    return root * root


def efficient_points(
    model: Model,
    hardware: Sequence[Hardware],
    isl: float,
    osl: float,
    target: Target,
    *,
    max_accelerators: int = 16,
    settings: EngineSettings | None = None,
    precisions: Any = None,
    keep: int = 5,
) -> Points:
    """Return the efficient ways to serve a model within targets, for each hardware.

    All layouts, precisions and batches are priced by the vectorised engine; a candidate stands
    where no other on the same hardware carries as much with as few accelerators.

    Args:
        model: to serve. hardware: candidates.
        isl, osl: mean tokens of a request.
        target: latencies; tails are held by the mean at the greatest number in flight.
        max_accelerators: of one replica; doubled up to 64 where the model does not fit.
        settings: engine.
        precisions: to try; None for the checkpoint's and those native to the hardware.
        keep: candidates per hardware; the smallest is always among them.

    Raises:
        DoesNotFitError: nothing serves the model within the targets.
    """
    chosen: list[Candidate] = []
    lost: dict[str, str] = {}
    considered = 0
    for kind in hardware:
        try:
            found = _search(model, kind, isl, osl, target, max_accelerators, settings, precisions)
        except DoesNotFitError as error:
            lost[kind.name] = str(error)
            continue
        considered += len(found)
        mine = candidates_of(found, target, osl)
        if not mine:
            lost[kind.name] = _nearest(found)
        chosen += [refined(c, isl, osl, target) for c in _kept(_undominated(mine), keep)]
    if not chosen:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(lost.items())[:3])
        raise DoesNotFitError(f"plan: {model.name} is served by none within {target}: {reasons}")
    return Points(tuple(chosen), considered, lost)


def _search(
    model: Model, kind: Hardware, isl: float, osl: float, target: Target, most: int,
    settings: EngineSettings | None, precisions: Any,
) -> Found:
    ttft, tpot = min(target.ttft_s, target.ttft_p99_s), min(target.tpot_s, target.tpot_p99_s)
    while True:
        try:
            return search(model, kind, isl, osl, most, ttft, tpot, precisions, settings,
                          BATCHES.tolist())  # fmt: skip
        except DoesNotFitError:
            if most >= 64:
                raise
            most *= 2


def candidates_of(found: Found, target: Target, osl: float) -> list[Candidate]:
    """Return one candidate for each layout and precision: its largest batch within the targets."""
    key = np.stack([found.deployment, found.tp, found.pp, found.ep, found.dp])
    change = np.flatnonzero(np.any(np.diff(key, axis=1) != 0, axis=0)) + 1
    meets = found.meets & (found.ttft_s + (osl - 1.0) * found.tpot_s <= target.e2e_s)
    groups = np.split(np.arange(len(found)), change)
    made = [_candidate(found, rows, meets, target, osl) for rows in groups]
    return [c for c in made if c is not None]


def _candidate(
    found: Found, rows: Any, meets: Any, target: Target, osl: float
) -> Candidate | None:
    good = meets[rows]
    if not good.any():
        return None
    last = int(np.flatnonzero(good)[-1])
    batch, ttft, tpot, rates = (
        _with_end(found.batch[rows], found.max_batch[rows[-1]], v[rows])
        for v in (found.batch, found.ttft_s, found.tpot_s, found.requests_per_s)
    )
    limit = _crossing(batch[last:], ttft[last:], tpot[last:], target, osl)
    mean = float(mean_batch(limit)) if _tails(target) else limit
    rate = float(np.interp(mean, batch, np.maximum.accumulate(rates)))
    if mean < batch[0]:
        rate *= mean / float(batch[0])
    at = rows[last]
    return Candidate(
        found.at(int(at)), limit, mean, rate, float(found.ttft_s[at]), float(found.tpot_s[at]),
        float(found.input_time_share[at]), 0.7, float(found.log_error_throughput[at]),
        str(found.bottleneck[at]),
    )  # fmt: skip


def _with_end(batch: Any, most: float, values: Any) -> Any:
    """Return values over the batches tried and, extrapolated, at the greatest that memory holds."""
    if len(batch) < 2 or most <= batch[-1]:
        return values
    slope = (values[-1] - values[-2]) / (batch[-1] - batch[-2])
    return np.append(values, values[-1] + slope * (min(most, 1.19 * batch[-1]) - batch[-1]))


def _crossing(batch: Any, ttft: Any, tpot: Any, target: Target, osl: float) -> float:
    """Return the batch at which the first target is met exactly, so that capacity is smooth.

    Args:
        batch, ttft, tpot: from the last point tried that meets all targets on.
        target: latencies. osl: tokens of an answer.
    """
    limit = float(batch[-1])
    measures = ((ttft, min(target.ttft_s, target.ttft_p99_s)),
                (tpot, min(target.tpot_s, target.tpot_p99_s)),
                (ttft + (osl - 1.0) * tpot, target.e2e_s))  # fmt: skip
    for values, most in measures:
        rising = np.maximum.accumulate(values)
        if rising[-1] > most:
            limit = min(limit, float(np.interp(most, rising, batch)))
    return limit


def refined(candidate: Candidate, isl: float, osl: float, target: Target) -> Candidate:
    """Return a candidate priced anew between the last batch of the grid and its limit.

    The limit was interpolated over a wide step; on a finer one it meets the targets exactly.

    Args:
        candidate: with ``batch_limit``.
        isl, osl: mean tokens of a request. target: latencies.
    """
    d, most = candidate.deployment, candidate.batch_limit
    fine = np.linspace(float(BATCHES[most >= BATCHES][-1]), most, _FINE)
    means = mean_batch(fine) if _tails(target) else fine
    point = operating_point(d, batch=np.concatenate([fine, means]), isl=isl, osl=osl,
                            detailed=False)

    def figures(name: str) -> Any:
        return np.broadcast_to(np.asarray(getattr(point, name), float), 2 * _FINE).reshape(2, -1)

    ttft, tpot = figures("ttft_s")[0], figures("tpot_s")[0]
    limit = _crossing(fine, ttft, tpot, target, osl)
    cached = d.settings.prefix_hit_share * isl

    def figure(name: str) -> float:
        return float(np.interp(limit, fine, figures(name)[1]))

    return replace(
        candidate, batch_limit=limit, batch=float(np.interp(limit, fine, means)),
        requests_per_s=figure("requests_per_s"), ttft_s=float(np.interp(limit, fine, ttft)),
        tpot_s=float(np.interp(limit, fine, tpot)), activity=figure("activity"),
        input_time_share=figure("input_time_share"), log_error=figure("log_error_throughput"),
        cached_share=cached_time_share(d, isl - cached, cached),
    )  # fmt: skip


def _tails(target: Target) -> bool:
    return bool(np.isfinite([target.ttft_p99_s, target.tpot_p99_s]).any())


def _undominated(found: list[Candidate]) -> list[Candidate]:
    """Return candidates that no other beats with as few chips, most requests per chip first."""
    kept: list[Candidate] = []
    for c in sorted(found, key=lambda c: (c.chips, -c.requests_per_s)):
        if all(c.requests_per_s > k.requests_per_s for k in kept):
            kept.append(c)
    return sorted(kept, key=lambda c: -c.requests_per_s / c.chips)


def _kept(found: list[Candidate], keep: int) -> list[Candidate]:
    """Return the best per chip, and the smallest, which carries small loads with least idle."""
    if len(found) <= keep:
        return found
    smallest = min(found, key=lambda c: c.chips)
    best = found[:keep]
    return best if smallest in best else [*best[:-1], smallest]


def _nearest(found: Found) -> str:
    return (
        f"lowest TTFT {1e3 * float(found.ttft_s.min()):.0f} ms, "
        f"lowest TPOT {1e3 * float(found.tpot_s.min()):.1f} ms"
    )
