"""What an accelerator costs an hour when one buys it: capital, power, and the people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from costsim.economics.energy import Region, energy_usd_per_hour, load_region, power_w
from costsim.economics.tables import number, read_table, table_path
from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware

HOURS_PER_YEAR = 8766.0


@dataclass(frozen=True)
class OwnershipTerms:
    """Assumptions of ownership; each may be an array. Defaults come from the table ``ownership``.

    Args:
        network_share: network capital over that of accelerator and server.
        facility_usd_per_kw: capital of building, power and cooling per kW of IT power.
        facility_life_years: over which the facility is written off.
        financing_rate: yearly cost of capital, 0.08 for 8 %.
        life_years: over which the servers are written off.
        residual_share: of the capital that the servers fetch at the end of life.
        opex_share: yearly maintenance, spares and insurance over the servers' capital.
        staff_usd_per_hour: operations staff, per accelerator.
        availability: share of the hours in which a bought accelerator can serve.
    """

    network_share: Any
    facility_usd_per_kw: Any
    facility_life_years: Any
    financing_rate: Any
    life_years: Any
    residual_share: Any
    opex_share: Any
    staff_usd_per_hour: Any
    availability: Any

    def with_fields(self, **changes: Any) -> OwnershipTerms:
        """Return a copy with some assumptions changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class OwnershipCost:
    """$ per accelerator and hour in service, and what it is made of.

    Args:
        usd_per_hour: the sum of ``breakdown``.
        breakdown: ``accelerator``, ``server``, ``network``, ``facility``, ``energy``,
            ``maintenance``, ``staff`` [$/h].
        capital_usd: spent at the start per accelerator, facility included.
    """

    usd_per_hour: Any
    breakdown: Mapping[str, Any]
    capital_usd: Any

    @property
    def fixed_usd_per_hour(self) -> Any:
        """The part that is paid when the accelerator idles too (all but energy)."""
        return self.usd_per_hour - self.breakdown["energy"]


def load_terms(**changes: Any) -> OwnershipTerms:
    """Return the assumptions of the table ``ownership``, some of them changed."""
    table, where = read_table("ownership"), str(table_path("ownership"))
    names = [f.name for f in fields(OwnershipTerms)]
    return OwnershipTerms(**{name: number(table, name, where) for name in names}).with_fields(
        **changes
    )


def annuity(rate: Any, life_years: Any, residual_share: Any = 0.0) -> Any:
    """Return the yearly payment per $ of capital that repays it over its life.

    r/(1 − (1+r)^−n) on the capital less the discounted residual: (1 − s/(1+r)^n)·r/(1 − (1+r)^−n),
    the capital recovery factor with salvage value (Newnan et al., Engineering Economic Analysis);
    at r = 0 it is (1 − s)/n.

    Args:
        rate: yearly, 0.08 for 8 %. life_years: n. residual_share: s. All broadcast.
    """
    r, n, s = (np.asarray(v, float) for v in (rate, life_years, residual_share))
    if np.any(n <= 0) or np.any(r < 0) or np.any((s < 0) | (s > 1)):
        raise InputError("ownership: life must be > 0, rate >= 0 and residual share within 0 to 1")
    small = r < 1e-9  # the limit, where 1 - (1+r)^-n is lost to rounding
    safe = np.where(small, 1.0, r)
    repaid = -np.expm1(-n * np.log1p(safe))
    return np.where(small, (1 - s) / n, (1 - s * (1 - repaid)) * safe / repaid)


def ownership(
    hardware: Hardware,
    terms: OwnershipTerms | None = None,
    region: Region | None = None,
    activity: Any = 0.7,
    **changes: Any,
) -> OwnershipCost:
    """Return what one owned accelerator costs for an hour in service.

    capex (accelerator, server share, network, facility) × annuity + power(activity)·PUE·$/kWh +
    maintenance + staff, over the hours that it can serve.

    Args:
        hardware: its list price, server price and power; arrays broadcast.
        terms: assumptions; those of the table ``ownership`` by default.
        region: electricity; the United States by default.
        activity: mean activity while in service, from the utilisation of the operating point.
        changes: fields of `OwnershipTerms` to change.

    Raises:
        InputError: the hardware is not sold (no list price), or an assumption is out of range.
    """
    terms = (terms or load_terms()).with_fields(**changes)
    region = region or load_region()
    chip = np.asarray(hardware.list_price_usd, float)
    if np.any(chip <= 0):
        raise InputError(f"hardware '{hardware.name}' has no list price: it cannot be bought")
    server = np.asarray(hardware.server_price_usd_per_accelerator, float)
    network = (chip + server) * terms.network_share
    facility = terms.facility_usd_per_kw * power_w(hardware, 1.0) / 1000.0
    servers = annuity(terms.financing_rate, terms.life_years, terms.residual_share)
    building = annuity(terms.financing_rate, terms.facility_life_years)
    hours = HOURS_PER_YEAR * np.asarray(terms.availability, float)
    breakdown = {
        "accelerator": chip * servers / hours,
        "server": server * servers / hours,
        "network": network * servers / hours,
        "facility": facility * building / hours,
        "energy": energy_usd_per_hour(hardware, region, activity),
        "maintenance": (chip + server + network) * terms.opex_share / hours,
        "staff": terms.staff_usd_per_hour / np.asarray(terms.availability, float),
    }
    capital = chip + server + network + facility
    return OwnershipCost(sum(breakdown.values()), breakdown, capital)
