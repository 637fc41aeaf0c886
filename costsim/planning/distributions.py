"""Inputs that are not known exactly: a range or a distribution, drawn by quasi-Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.errors import InputError, unknown_name

KINDS = ("fixed", "uniform", "loguniform", "normal", "lognormal", "triangular")
_Z90 = 1.6448536269514722


@dataclass(frozen=True)
class Distribution:
    """One uncertain input.

    Args:
        kind: one of `KINDS`.
        low, high: bounds of ``uniform``, ``loguniform`` and ``triangular``; the central 90 % of
            ``normal`` and ``lognormal``.
        mode: of ``triangular``; the value of ``fixed``.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    mode: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("distribution", self.kind, KINDS)
        values = (self.low, self.high, self.mode)
        if not all(math.isfinite(v) for v in values):
            raise InputError(f"distribution {self.kind}: bounds must be finite, not {values}")
        if self.kind != "fixed" and not self.low < self.high:
            raise InputError(
                f"distribution {self.kind}: low = {self.low} must be below high = {self.high}"
            )
        if self.kind.startswith("log") and self.low <= 0:
            raise InputError(f"distribution {self.kind}: low = {self.low} must be above zero")
        if self.kind == "triangular" and not self.low <= self.mode <= self.high:
            raise InputError(f"distribution triangular: mode = {self.mode} is outside its bounds")

    def ppf(self, share: Any) -> Any:
        """Return quantiles (the inverse of the distribution function); broadcasts."""
        u = np.asarray(share, float)
        if self.kind == "fixed":
            return np.full_like(u, self.mode)
        if self.kind == "uniform":
            return self.low + (self.high - self.low) * u
        if self.kind == "loguniform":
            return self.low * (self.high / self.low) ** u
        if self.kind == "triangular":
            return self._triangular(u)
        from scipy.special import ndtri

        z = ndtri(u) / _Z90
        if self.kind == "normal":
            return 0.5 * (self.low + self.high) + 0.5 * (self.high - self.low) * z
        middle = math.sqrt(self.low * self.high)
        return middle * (self.high / self.low) ** (0.5 * z)

    def scaled(self, factor: float) -> Distribution:
        """Return the distribution of the quantity times a positive factor."""
        low, high, mode = (factor * v for v in (self.low, self.high, self.mode))
        return Distribution(self.kind, low, high, mode)

    @property
    def median(self) -> float:
        """The value that half of the draws stay below."""
        return float(self.ppf(0.5))

    def _triangular(self, u: Any) -> Any:
        span, left = self.high - self.low, self.mode - self.low
        knee = left / span
        rising = self.low + np.sqrt(u * span * left)
        falling = self.high - np.sqrt((1.0 - u) * span * (self.high - self.mode))
        return np.where(u < knee, rising, falling)


def lognormal(log_error: float) -> Distribution:
    """Return a factor with median 1 whose logarithm has a standard deviation; fixed at 1 for 0."""
    if log_error <= 0:
        return Distribution("fixed", mode=1.0)
    return Distribution("lognormal", math.exp(-_Z90 * log_error), math.exp(_Z90 * log_error))


def from_table(value: Any, where: str) -> Distribution:
    """Return the distribution of a table's value: a number, ``[low, high]`` or a table.

    Args:
        value: a number is fixed, two numbers are a uniform range, a table has ``kind``, ``low``,
            ``high`` and ``mode``.
        where: named in errors.
    """
    if isinstance(value, bool):
        raise InputError(f"{where}: a number, [low, high] or a table is needed, not {value}")
    if isinstance(value, int | float):
        return Distribution("fixed", mode=float(value))
    if isinstance(value, list) and len(value) == 2:
        return Distribution("uniform", float(value[0]), float(value[1]))
    if isinstance(value, dict) and set(value) <= {"kind", "low", "high", "mode"}:
        low, high, mode = (float(value.get(k, 0.0)) for k in ("low", "high", "mode"))
        return Distribution(str(value.get("kind", "uniform")), low, high, mode)
    raise InputError(f"{where}: a number, [low, high] or a table with kind, low, high is needed")


def split(value: Any, where: str) -> tuple[float, Distribution | None]:
    """Return the value to plan with and the factor on it that is uncertain (None: it is known).

    Args:
        value: as in `from_table`; the median of a range or distribution is planned with.
        where: named in errors.
    """
    given = value if isinstance(value, Distribution) else from_table(value, where)
    middle = given.median
    if given.kind == "fixed":
        return middle, None
    if not middle > 0:
        raise InputError(f"{where}: the middle of a range must be above zero, not {middle:g}")
    return middle, given.scaled(1.0 / middle)


def range_of(text: str, where: str) -> Distribution:
    """Return the distribution of ``3`` (fixed) or ``2..4`` (uniform).

    Args:
        text: as typed. where: named in errors.
    """
    parts = [part.strip() for part in text.split("..")]
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return from_table(numbers[0], where)
    if len(numbers) != 2:
        raise InputError(f"{where} '{text}': must be a number or a range such as 2..4")
    return from_table(numbers, where)


def draw(inputs: Mapping[str, Distribution], count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return scrambled Sobol draws of several inputs (`scipy.stats.qmc`), by name.

    Args:
        inputs: by name. count: of draws; powers of two are balanced. seed: of the scrambling.
    """
    from scipy.stats import qmc

    if count < 1:
        raise InputError(f"draws = {count}: at least 1 is needed")
    names = list(inputs)
    power = math.ceil(math.log2(count))
    points = qmc.Sobol(len(names), scramble=True, rng=np.random.default_rng(seed)).random_base2(
        power
    )[:count]
    inside = np.clip(points, 1e-12, 1 - 1e-12)
    return {name: inputs[name].ppf(inside[:, at]) for at, name in enumerate(names)}


def sobol_shares(
    function: Any, inputs: Mapping[str, Distribution], count: int = 1024, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return first-order and total Sobol indices of a quantity (`scipy.stats.sobol_indices`).

    Args:
        function: takes draws by name (arrays) and returns the quantity of each.
        inputs: those fixed have no share.
        count: a power of two; the function is called for (inputs + 2) times as many draws.
        seed: of the draws.
    """
    from scipy.stats import sobol_indices, uniform

    names: Sequence[str] = [n for n, d in inputs.items() if d.kind != "fixed"]
    fixed = {n: d for n, d in inputs.items() if d.kind == "fixed"}
    if len(names) < 2:  # a single input has all the variance there is
        return {n: (1.0, 1.0) for n in names}

    def quantity(shares: np.ndarray) -> np.ndarray:
        flat = np.clip(shares.reshape(len(names), -1), 1e-12, 1 - 1e-12)
        drawn = {n: inputs[n].ppf(flat[at]) for at, n in enumerate(names)}
        drawn |= {n: np.full(flat.shape[1], d.mode) for n, d in fixed.items()}
        return np.asarray(function(drawn), float).reshape(1, *shares.shape[1:])

    found = sobol_indices(func=quantity, n=count, dists=[uniform()] * len(names),
                          rng=np.random.default_rng(seed))  # fmt: skip
    first, total = np.atleast_2d(found.first_order), np.atleast_2d(found.total_order)
    first, total = first.reshape(-1), total.reshape(-1)
    return {n: (float(first[i]), float(total[i])) for i, n in enumerate(names)}
