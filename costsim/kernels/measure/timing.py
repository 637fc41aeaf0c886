"""Timing of one call: warm-up, repeats until the spread settles, median and robust spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Calls shorter than this are timed in groups, so that the clock's own cost stays under 0.1 %.
SHORTEST_SAMPLE_S = 1e-4
FEWEST_SAMPLES = 5
MOST_SAMPLES = 400
# The median is settled when its standard error falls under this share of it.
SETTLED = 0.01


@dataclass(frozen=True)
class Timing:
    """Times of one call.

    Args:
        median_s: median of the samples.
        quiet_s: median of the fastest half of them: the time without other processes' bursts,
            which only ever add. On a quiet machine the two agree within the spread.
        spread: robust standard deviation of the samples (1.4826 times the median absolute
            deviation) over the median.
        samples: how many were taken.
    """

    median_s: float
    quiet_s: float
    spread: float
    samples: int


def _nothing() -> None:
    """Wait for nothing: the CPU is done when a call returns."""


def time_call(
    call: Callable[[], object], budget_s: float, synchronise: Callable[[], None] = _nothing,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Return the time of a call.

    Args:
        call: what to time.
        budget_s: stop sampling after this long; at least `FEWEST_SAMPLES` are taken, or two
            where a single call takes longer than the budget.
        synchronise: waits until the device has finished.
        clock: the wall's, or that of the processor time where one thread works.
    """
    call()  # warm-up: memory is mapped, code paths are chosen
    single = _sample(call, 1, synchronise, clock)
    group = max(1, int(np.ceil(SHORTEST_SAMPLE_S / max(single, 1e-9))))
    _sample(call, group, synchronise, clock)
    samples: list[float] = []
    stop = time.perf_counter() + budget_s
    while len(samples) < MOST_SAMPLES:
        samples.append(_sample(call, group, synchronise, clock) / group)
        late = time.perf_counter() > stop
        if late and len(samples) >= (2 if single > budget_s else FEWEST_SAMPLES):
            break
        if len(samples) >= FEWEST_SAMPLES and _settled(samples):
            break
    median, spread = _summary(samples)
    fastest = sorted(samples)[: (len(samples) + 1) // 2]
    return Timing(median, float(np.median(fastest)), spread, len(samples))


def _sample(
    call: Callable[[], object], group: int, synchronise: Callable[[], None],
    clock: Callable[[], float],
) -> float:
    start = clock()
    for _ in range(group):
        call()
    synchronise()
    return clock() - start


def _summary(samples: list[float]) -> tuple[float, float]:
    median = float(np.median(samples))
    deviation = 1.4826 * float(np.median(np.abs(np.asarray(samples) - median)))
    return median, deviation / median


def _settled(samples: list[float]) -> bool:
    # The standard error of a median is about 1.25 sd / sqrt(n); few samples can agree by luck.
    if len(samples) < 9:
        return False
    return _summary(samples)[1] * 1.25 / len(samples) ** 0.5 < SETTLED
