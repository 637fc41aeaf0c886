"""Own, rent or call an API: from which utilisation, and from which day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from costsim.economics.ownership import HOURS_PER_YEAR
from costsim.errors import InputError


@dataclass(frozen=True)
class Option:
    """One way to have the capacity of a fleet.

    Args:
        name: to show.
        capital_usd: spent at the start, 0 for rent and API.
        fixed_usd_per_hour: paid at any load: the annuity of capital or a reservation, staff …
        full_usd_per_hour: paid on top in proportion to the utilisation, at full load: power,
            on-demand hours, or API tokens.
        running_usd_per_hour: part of ``fixed_usd_per_hour`` that is no capital.
        decline_per_year: yearly fall of the price, 0.3 for 30 %, for rent and API.
    """

    name: str
    capital_usd: float = 0.0
    fixed_usd_per_hour: float = 0.0
    full_usd_per_hour: float = 0.0
    running_usd_per_hour: float = 0.0
    decline_per_year: float = 0.0

    def usd_per_hour(self, utilisation: Any) -> Any:
        """Return $/h at a utilisation (0 to 1), capital spread over its life."""
        return self.fixed_usd_per_hour + self.full_usd_per_hour * np.asarray(utilisation, float)

    def spent_usd(self, years: Any, utilisation: float) -> Any:
        """Return $ spent until ``years`` after the start, the capital at the start.

        A price that falls by d a year costs ∫(1−d)^t dt = (1 − (1−d)^T)/−ln(1−d) of its first
        year's rate after T years.
        """
        t = np.asarray(years, float)
        own = self.running_usd_per_hour if self.capital_usd else self.fixed_usd_per_hour
        hourly = own + self.full_usd_per_hour * utilisation
        if not 0 <= self.decline_per_year < 1:
            raise InputError(f"{self.name}: decline_per_year must be at least 0 and below 1")
        k = -np.log1p(-self.decline_per_year)
        effective = t if k == 0 else -np.expm1(-k * t) / k
        return self.capital_usd + hourly * HOURS_PER_YEAR * effective


def break_even_utilisation(first: Option, second: Option) -> float:
    """Return the utilisation (0 to 1) above which the one with the lower slope is cheaper.

    NaN where one is cheaper at every utilisation.
    """
    slope = second.full_usd_per_hour - first.full_usd_per_hour
    if slope == 0:
        return float("nan")
    crossing = (first.fixed_usd_per_hour - second.fixed_usd_per_hour) / slope
    return float(crossing) if 0 <= crossing <= 1 else float("nan")


def break_even_date(
    buy: Option, rent: Option, utilisation: float, start: date, horizon_years: float = 10.0
) -> date | None:
    """Return the day on which buying has cost no more than renting since ``start``; None: never.

    Args:
        buy, rent: the option with capital, and that without.
        utilisation: mean, 0 to 1.
        horizon_years: how far to look.
    """
    years = np.arange(0.0, horizon_years, 1.0 / 365.25)
    ahead = buy.spent_usd(years, utilisation) <= rent.spent_usd(years, utilisation)
    if not np.any(ahead):
        return None
    return start + timedelta(days=float(years[int(np.argmax(ahead))]) * 365.25)
