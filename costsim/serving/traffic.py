"""Traffic, and how a scenario's table becomes traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from costsim.serving.flow import Sessions, SloClass, Traffic, from_trace, generated, merged

__all__ = [
    "Sessions", "SloClass", "Traffic", "from_trace", "generated", "load_traffic", "merged",
]  # fmt: skip


def load_traffic(table: dict[str, Any], folder: Path | str = ".", seed: int = 0) -> Traffic:
    """Return the traffic that a scenario's table describes.

    Args:
        table: keys as in `costsim.serving.traffic_schema.TrafficTable`.
        folder: that relative trace paths start from.
        seed: of generated arrivals and lengths.

    Raises:
        InputError: one line with the key, its value and what is allowed.
    """
    from costsim.serving.traffic_schema import build

    return build(table, Path(folder), seed)
