"""Arrival times from generators: each takes a rate (requests per second) and a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costsim.errors import InputError

DAY_S = 86_400.0


def poisson(rate: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Return ``count`` arrival times (s) with independent exponential gaps."""
    return np.cumsum(random.exponential(1.0 / _positive(rate), count))


def gamma(rate: float, cv: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Return arrival times with Gamma gaps of coefficient of variation ``cv`` (1 is Poisson)."""
    shape = 1.0 / _positive(cv, "cv") ** 2
    return np.cumsum(random.gamma(shape, 1.0 / (shape * _positive(rate)), count))


def mmpp(
    rates: Sequence[float], stays_s: Sequence[float], count: int, random: np.random.Generator
) -> np.ndarray:
    """Return arrivals of a Markov-modulated Poisson process that visits its states in turn.

    Args:
        rates: rate in each state; zero is allowed, but not in all.
        stays_s: mean stay in each state (s), exponential.
        count: arrivals.
        random: generator.
    """
    if len(rates) != len(stays_s) or not len(rates) or max(rates) <= 0 or min(rates) < 0:
        raise InputError("mmpp: as many stays as rates are needed, and a rate above zero")
    times: list[np.ndarray] = []
    clock, found, state = 0.0, 0, 0
    while found < count:
        stay = random.exponential(_positive(stays_s[state], "stay"))
        arrivals = np.sort(random.uniform(clock, clock + stay, random.poisson(rates[state] * stay)))
        times.append(arrivals)
        found += len(arrivals)
        clock += stay
        state = (state + 1) % len(rates)
    return np.concatenate(times)[:count]


def by_curve(
    rate: float,
    shape: Sequence[float],
    period_s: float,
    count: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Return arrivals of a Poisson process whose rate follows a repeating curve.

    Unit-rate arrivals are carried through the inverse of the cumulated curve.

    Args:
        rate: mean rate over a period.
        shape: relative rate in equal parts of the period, such as 24 hours.
        period_s: length of the curve.
        count: arrivals.
        random: generator.
    """
    curve = np.asarray(shape, dtype=float)
    if curve.ndim != 1 or not len(curve) or np.any(~np.isfinite(curve)) or np.any(curve < 0):
        raise InputError("rate curve: a list of finite, non-negative numbers is needed")
    if curve.sum() <= 0:
        raise InputError("rate curve: all parts are zero, so that nothing ever arrives")
    cumulated = np.concatenate([[0.0], np.cumsum(curve / curve.sum())])
    edges = np.linspace(0.0, period_s, len(curve) + 1)
    rises = np.concatenate([[True], np.diff(cumulated) > 0])
    work = np.cumsum(random.exponential(1.0, count)) / (_positive(rate) * period_s)
    rounds, rest = np.divmod(work, 1.0)
    return rounds * period_s + np.interp(rest, cumulated[rises], edges[rises])


def diurnal(low: float = 0.4, peak_hour: float = 14.0, parts: int = 96) -> np.ndarray:
    """Return a daily curve: one cosine between ``low`` and 1 with its peak at an hour."""
    hours = (np.arange(parts) + 0.5) * 24.0 / parts
    return (1 + low) / 2 + (1 - low) / 2 * np.cos(2 * np.pi * (hours - peak_hour) / 24.0)


def weekly(low: float = 0.4, peak_hour: float = 14.0, weekend: float = 0.6) -> np.ndarray:
    """Return a curve of seven days, of which the last two carry ``weekend`` of a working day."""
    day = diurnal(low, peak_hour)
    return np.concatenate([day] * 5 + [day * weekend] * 2)


def _positive(value: float, name: str = "rate") -> float:
    if not np.isfinite(value) or value <= 0:
        raise InputError(f"{name} = {value}: must be finite and above zero")
    return float(value)
