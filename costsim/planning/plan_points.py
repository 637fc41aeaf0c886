"""Efficient operating points of a model on each kind of accelerator, within latency targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.search import Found, search
from costsim.engine.settings import EngineSettings
from costsim.engine.weights import is_moe
from costsim.errors import DoesNotFitError
from costsim.hardware.accelerator import Hardware
from costsim.models.architecture import Model
from costsim.planning.targets import Target

BATCHES = np.unique(np.round(2.0 ** (np.arange(0, 49) / 4.0))).astype(int)
# One-sided normal quantile of 99 %: requests in flight fluctuate as a Poisson count.
_Z99 = 2.326


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
        mine = candidates_of(found, target)
        if not mine:
            lost[kind.name] = _nearest(found)
        chosen += _kept(_undominated(mine), keep)
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


def candidates_of(found: Found, target: Target) -> list[Candidate]:
    """Return one candidate for each layout and precision: its largest batch within the targets."""
    key = np.stack([found.deployment, found.tp, found.pp, found.ep, found.dp])
    change = np.flatnonzero(np.any(np.diff(key, axis=1) != 0, axis=0)) + 1
    tails = np.isfinite([target.ttft_p99_s, target.tpot_p99_s]).any()
    meets = found.meets
    groups = np.split(np.arange(len(found)), change)
    made = [_candidate(found, rows, meets, bool(tails)) for rows in groups]
    return [c for c in made if c is not None]


def _candidate(found: Found, rows: Any, meets: Any, tails: bool) -> Candidate | None:
    good = meets[rows]
    if not good.any():
        return None
    last = int(np.flatnonzero(good)[-1])
    limit = float(found.batch[rows[last]])
    mean = float(mean_batch(limit)) if tails else limit
    rate = float(np.interp(mean, found.batch[rows], found.requests_per_s[rows]))
    if mean < found.batch[rows[0]]:
        rate *= mean / float(found.batch[rows[0]])
    at = rows[last]
    return Candidate(
        found.at(int(at)), limit, mean, rate, float(found.ttft_s[at]), float(found.tpot_s[at]),
        float(found.input_time_share[at]), 0.7, float(found.log_error_throughput[at]),
        str(found.bottleneck[at]),
    )  # fmt: skip


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
