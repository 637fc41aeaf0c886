"""Power, energy and carbon of accelerators at the activity they really have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.economics.tables import number, read_table, table_path
from costsim.errors import unknown_name
from costsim.hardware.accelerator import Hardware

JOULE_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Region:
    """Electricity of a place.

    Args:
        name: key in the table ``electricity``.
        usd_per_kwh: price for large consumers.
        kg_co2_per_kwh: carbon intensity, life cycle.
        pue: power usage effectiveness, facility over IT power.
    """

    name: str
    usd_per_kwh: Any
    kg_co2_per_kwh: Any
    pue: Any


def load_region(name: str = "us") -> Region:
    """Return the electricity of a region of the table ``electricity``.

    Raises:
        InputError: the region is unknown; the nearest is suggested.
    """
    table, where = read_table("electricity"), str(table_path("electricity"))
    regions = table.get("region", {})
    if name.lower() not in regions:
        raise unknown_name("region", name, regions)
    row = regions[name.lower()]
    pue = number(row if "pue" in row else table, "pue", where)
    return Region(
        name.lower(), number(row, "usd_per_kwh", where), number(row, "kg_co2_per_kwh", where), pue
    )


def power_w(hardware: Hardware, activity: Any = 1.0, server: bool = True) -> Any:
    """Return the mean power of one accelerator, P_idle + (P_tdp - P_idle) · activity [W].

    Args:
        hardware: its ``tdp_w``, ``idle_w`` and ``server_w_per_accelerator``.
        activity: 0 to 1; broadcasts.
        server: whether the share of the rest of the server is added.
    """
    idle, tdp = np.asarray(hardware.idle_w, float), np.asarray(hardware.tdp_w, float)
    own = idle + (tdp - idle) * np.clip(np.asarray(activity, float), 0.0, 1.0)
    return own + (hardware.server_w_per_accelerator if server else 0.0)


def energy_usd_per_hour(hardware: Hardware, region: Region, activity: Any = 1.0) -> Any:
    """Return what the electricity of one accelerator costs, P · PUE · $/kWh [$/h]."""
    return power_w(hardware, activity) / 1000.0 * region.pue * region.usd_per_kwh


def carbon_kg_per_hour(hardware: Hardware, region: Region, activity: Any = 1.0) -> Any:
    """Return the carbon of one accelerator's electricity [kg CO2 equivalent per hour]."""
    return power_w(hardware, activity) / 1000.0 * region.pue * region.kg_co2_per_kwh
