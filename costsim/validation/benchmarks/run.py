"""One measured run of a server under load, whichever tool measured it; all times in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError

Array = NDArray[np.float64]
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Statistic:
    """Mean and percentiles of one latency over the requests of a run [s]; None where unknown."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None

    @property
    def central(self) -> float | None:
        """The mean, or the median where no mean is given."""
        return self.mean if self.mean is not None else self.p50


@dataclass(frozen=True)
class Requests:
    """Completed requests of a run, one value each; NaN where unknown.

    Args:
        input_tokens, output_tokens: of each.
        ttft_s, e2e_s: latencies.
        start_s: when each was sent.
    """

    input_tokens: Array
    output_tokens: Array
    ttft_s: Array
    e2e_s: Array
    start_s: Array

    def __len__(self) -> int:
        return len(self.ttft_s)

    @property
    def tpot_s(self) -> Array:
        """(E2E − TTFT) / (n − 1); NaN for requests of one token, as vLLM leaves them out."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1.0, np.nan)
        return np.asarray((self.e2e_s - self.ttft_s) / gaps)

    def select(self, rows: Any) -> Requests:
        """Return some of the requests."""
        return Requests(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        source: file and, with several runs in one, which.
        tool: that measured it.
        concurrency: requests in flight at most (closed loop); None where not limited.
        request_rate: offered requests per second (open loop); infinite for all at once.
        requests: completed; failed: not completed.
        duration_s: of the run.
        isl, osl: mean tokens of prompts and answers.
        ttft_s, tpot_s, e2e_s: latencies; TPOT is (E2E − TTFT) / (n − 1).
        requests_per_s, output_tokens_per_s: throughput.
        model: name that the tool was given; engine: what the tool says it spoke to.
        metadata: strings that the user added.
        notes: what was derived or is missing.
        detail: the single requests, where the file has them.
        isl_cv, osl_cv: coefficients of variation of the lengths, where no single requests say.
        arrival_cv: the same of the gaps between requests of an open loop; 1 for Poisson.
        whole: the run of which this is a part (`part_of`).
    """

    source: str
    tool: str
    concurrency: float | None
    request_rate: float
    requests: int
    failed: int
    duration_s: float
    isl: float
    osl: float
    ttft_s: Statistic
    tpot_s: Statistic
    e2e_s: Statistic
    requests_per_s: float
    output_tokens_per_s: float
    model: str = ""
    engine: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    detail: Requests | None = None
    isl_cv: float = 0.0
    osl_cv: float = 0.0
    arrival_cv: float = 1.0
    whole: Run | None = None

    @property
    def in_flight(self) -> float | None:
        """Mean requests in the system, by Little's law: throughput times mean latency."""
        return None if self.e2e_s.central is None else self.requests_per_s * self.e2e_s.central

    @property
    def label(self) -> str:
        """What tells the run apart from others of its file."""
        rate = "" if math.isinf(self.request_rate) else f"{self.request_rate:g} req/s"
        held = "" if self.concurrency is None else f"concurrency {self.concurrency:g}"
        return ", ".join(filter(None, (held, rate))) or f"all {self.requests} at once"


class NothingCompleted(InputError):
    """No request of a run completed."""


def number(value: Any, where: str, name: str) -> float | None:
    """Return a number, also one written as a string (``"inf"``); None for what is not there.

    Raises:
        InputError: it is something else.
    """
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: '{name}' is {value!r}; a number is needed") from None


def required(value: float | None, where: str, name: str) -> float:
    """Return a positive finite number.

    Raises:
        InputError: it is missing, or zero, negative, or not finite.
    """
    if value is None:
        raise InputError(f"{where}: '{name}' is missing; give the tool's own result file, "
                         "unshortened, or what it printed")
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: '{name}' is {value:g}; a positive number is needed")
    return value


def statistic_of(values: Array) -> Statistic:
    """Return the statistic of single values; NaN are left out."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Statistic()
    return Statistic(float(known.mean()), **{k: float(np.quantile(known, q))
                                             for k, q in QUANTILES.items()})


def derived_tpot(run: Run) -> Run:
    """Return the run with TPOT from E2E and TTFT where the tool did not write it.

    Means, or the mean E2E with the median TTFT where requests did not queue for a burst's end.
    """
    whole, first = run.e2e_s.mean, run.ttft_s.mean
    burst = run.concurrency is None and math.isinf(run.request_rate)
    if first is None and not burst:
        first = run.ttft_s.p50
    if run.tpot_s.central is not None or whole is None or first is None or run.osl <= 1:
        return run
    each = (whole - first) / (run.osl - 1.0)
    if each <= 0:
        return run
    note = "no TPOT in the file; taken as (E2E − TTFT) / (OSL − 1) of the means"
    return replace(run, tpot_s=Statistic(each), notes=(*run.notes, note))


def derived_e2e(run: Run) -> Run:
    """Return the run with E2E from TTFT and TPOT where the tool did not write it."""
    first, each = run.ttft_s.central, run.tpot_s.central
    if run.e2e_s.central is not None or first is None or each is None:
        return run
    note = "no end-to-end latency in the file; taken as TTFT + (OSL − 1) · TPOT"
    return replace(run, e2e_s=Statistic(first + max(run.osl - 1.0, 0.0) * each),
                   notes=(*run.notes, note))


def part_of(run: Run, rows: Any, suffix: str) -> Run:
    """Return the run as some of its requests saw it; the load is the whole run's."""
    if run.detail is None:
        raise InputError(f"{run.source}: no single requests in the file")
    some = run.detail.select(rows)
    return replace(
        run, source=f"{run.source} ({suffix})", requests=len(some),
        isl=float(np.nanmean(some.input_tokens)), osl=float(np.nanmean(some.output_tokens)),
        ttft_s=statistic_of(some.ttft_s), tpot_s=statistic_of(some.tpot_s),
        e2e_s=statistic_of(some.e2e_s), detail=some, whole=run)


def numbers(values: Sequence[Any] | None, count: int) -> Array:
    """Return a list as an array of some length; NaN for what is not there."""
    found = np.full(count, np.nan)
    for i, value in enumerate((values or [])[:count]):
        if isinstance(value, int | float):
            found[i] = value
    return found
