"""What a fleet may be made of and has to carry: offers, pools, demand by hour, limits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from costsim.errors import InputError


@dataclass(frozen=True)
class Offer:
    """Chips of one kind that can be had.

    Args:
        name: of the hardware.
        on_demand_usd, spot_usd: $ per chip and hour; infinity where not offered.
        committed_usd: by term (``reserved_1y``, ``reserved_3y``, ``owned``): $ per chip and hour,
            paid for every hour.
        limit: chips that can be had at once.
        committed_limit: of them, that can be committed.
        watts: of one chip at full load with its share of the server.
        interruptions_per_hour: of one spot replica.
    """

    name: str
    on_demand_usd: float = np.inf
    spot_usd: float = np.inf
    committed_usd: dict[str, float] = field(default_factory=dict)
    limit: float = np.inf
    committed_limit: float = np.inf
    watts: float = 0.0
    interruptions_per_hour: float = 0.0


@dataclass(frozen=True)
class Pool:
    """One kind of replica.

    Args:
        name: to show.
        offer: index of its hardware.
        chips: of one replica.
        capacity: requests/s of each demand that one replica carries within its targets when it
            serves nothing else; 0 where it cannot serve it.
        headroom: replicas' worth that the pool leaves free in each hour that it is used, however
            many there are: n replicas carry n − headroom.
    """

    name: str
    offer: int
    chips: int
    capacity: tuple[float, ...]
    headroom: float = 0.0


@dataclass(frozen=True)
class Fleet:
    """What has to be planned.

    Args:
        offers, pools: chips, and replicas that can be built of them.
        demand: requests/s, demand by hour.
        weights: how often each hour occurs in the period that the cost is for (hours).
        spare: replicas of each pool in use that may fail (N+1: 1).
        zones: a pool in use is spread over so many, and survives the loss of one.
        max_spot_share: of the replicas of a pool.
        replace_h: time until an interrupted spot replica is back.
        cold_start_h: time from paying for a replica until it serves.
        power_cap_w: over all chips, in every hour.
        budget_usd: for the period.
        steps: (hour before, hour, times a period) of every change between hours, for the cost of
            starts; None: each hour follows the one before it, the first the last.
    """

    offers: tuple[Offer, ...]
    pools: tuple[Pool, ...]
    demand: np.ndarray
    weights: np.ndarray
    spare: int = 0
    zones: int = 1
    max_spot_share: float = 0.0
    replace_h: float = 0.25
    cold_start_h: float = 0.0
    power_cap_w: float = np.inf
    budget_usd: float = np.inf
    steps: tuple[tuple[int, int, float], ...] | None = None

    def __post_init__(self) -> None:
        if not np.all(np.isfinite(self.demand)) or np.any(self.demand < 0) or not self.demand.size:
            raise InputError("plan: rates must be finite and not negative, and there must be some")
        if not 0 <= self.max_spot_share <= 1 or self.spare < 0 or self.zones < 1:
            raise InputError("plan: spot share within 0 to 1, spare >= 0 and zones >= 1 are needed")

    def changes(self) -> tuple[tuple[int, int, float], ...]:
        """Return ``steps``, or those of hours that follow each other in a circle."""
        if self.steps is not None:
            return self.steps
        hours = self.demand.shape[1]
        times = np.asarray(self.weights, float)
        return tuple(((h - 1) % hours, h, float(times[h])) for h in range(hours) if hours > 1)

    def availability(self, pool: Pool) -> float:
        """Return the share of the time that a spot replica of a pool stands: 1/(1 + λτ)."""
        offer = self.offers[pool.offer]
        return 1.0 / (1.0 + offer.interruptions_per_hour * self.replace_h)
