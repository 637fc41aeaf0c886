"""Whether a fleet can carry its traffic, by the steady state, before anything is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from costsim.engine.disaggregation import disaggregate
from costsim.errors import DoesNotFitError, InputError, UnstableLoadError
from costsim.planning.choose import BATCHES, best_batch
from costsim.planning.fleet_case import FleetCase, Part
from costsim.serving.traffic import Traffic


@dataclass(frozen=True)
class Load:
    """Offered load and capacity of a pool (requests/s).

    Args:
        offered: mean rate of the traffic; 0 for a closed loop or a single request.
        capacity: what its replicas carry at most, by the steady state.
    """

    offered: float
    capacity: float

    def as_dict(self) -> dict[str, float]:
        """Return a JSON-ready form."""
        return {"offered_requests_per_s": self.offered, "capacity_requests_per_s": self.capacity}


def offered_rate(traffic: Traffic) -> float:
    """Return the mean arrival rate of open traffic, all turns of its sessions counted.

    It is 0 for a closed loop, a single request, and sessions without a number of turns.
    """
    span = float(traffic.arrival[-1] - traffic.arrival[0]) if len(traffic) > 1 else 0.0
    rules = next(iter(traffic.rules.values()), None)
    if span <= 0 or (rules is not None and not rules.turns):
        return 0.0
    return (len(traffic) - 1) / span * (rules.turns if rules is not None else 1)


def capacity(parts: list[Part], traffic: Traffic) -> float:
    """Return the requests per second that the replicas of a pool carry at most."""
    isl = max(float(np.mean(traffic.prompt)), 1.0)
    osl = max(float(np.mean(traffic.output)), 1.0)
    whole = sum(
        best_batch(p.deployment, isl=isl, osl=osl).requests_per_s * p.count
        for p in parts if p.role == "both" and p.count
    )  # fmt: skip
    read = [p for p in parts if p.role == "prefill"]
    write = [p for p in parts if p.role == "decode"]
    if not read or not write:
        return whole
    point = disaggregate(
        read[0].deployment, write[0].deployment, isl, osl, BATCHES,
        prefill_replicas=sum(p.count for p in read), decode_replicas=sum(p.count for p in write),
    )  # fmt: skip
    fits = np.asarray(point.fits)
    if not fits.any():
        raise DoesNotFitError(
            f"{write[0].deployment.model.name}: no decode batch of {isl + osl:.0f} tokens fits"
        )
    return whole + float(np.max(np.where(fits, point.requests_per_s, 0.0)))


def check_load(case: FleetCase, flows: Mapping[str, Traffic]) -> dict[str, Load]:
    """Return offered load and capacity of each pool.

    Raises:
        UnstableLoadError: a load is above the capacity, and overload was not allowed.
        InputError: a request is longer than the model's context, or a pool has no replicas.
    """
    found = {}
    for pool, flow in flows.items():
        parts = case.parts_of(pool)
        if not any(part.count for part in parts):
            raise InputError(f"pool '{pool}': has no replicas, so that its requests never end")
        if case.options.oversize == "error":
            _check_longest(parts, flow)
        load = Load(offered_rate(flow), capacity(parts, flow))
        if load.offered > load.capacity and not _relieved(case, pool):
            raise _unstable(pool, parts, flow, load, len(flows) > 1)
        found[pool] = load
    return found


def _relieved(case: FleetCase, pool: str) -> bool:
    """Whether a pool may be offered more than it carries: its fleet grows, or it sheds load."""
    rules = case.operations.get(pool, {})
    sheds = "max_outstanding" in (rules.get("admission") or {})
    return case.options.allow_overload or bool(rules.get("autoscaler")) or sheds


def _unstable(
    pool: str, parts: list[Part], flow: Traffic, load: Load, several: bool
) -> UnstableLoadError:
    where = f"pool '{pool}': " if several else ""
    return UnstableLoadError(
        f"{where}unstable load: {load.offered:.3g} requests/s offered to "
        f"{sum(part.count for part in parts)} replica(s) that carry {load.capacity:.3g} requests/s "
        f"of {float(np.mean(flow.prompt)):.0f} tokens in and {float(np.mean(flow.output)):.0f} "
        "out; add replicas, lower the rate or allow overload"
    )


def _check_longest(parts: list[Part], traffic: Traffic) -> None:
    tokens = np.asarray(traffic.prompt) + np.asarray(traffic.output)
    for part in parts:
        model = part.deployment.model
        if model.max_context and len(tokens) and tokens.max() > model.max_context:
            worst = int(tokens.argmax())
            raise InputError(
                f"request {worst + 1} of the traffic: {int(tokens[worst])} tokens are longer than "
                f"the context of {model.name} ({model.max_context}); oversize = 'reject' rejects "
                "such requests"
            )
