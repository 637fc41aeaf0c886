"""Pools of replicas: what a replica is, and how requests get into a pool."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from costsim.errors import InputError
from costsim.serving.requests import RequestTable
from costsim.serving.routers import LeastOutstanding, Router, make_router
from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import StepCost

if TYPE_CHECKING:
    from costsim.serving.lockstep import LockstepCost
    from costsim.serving.replica import Replica


@dataclass(frozen=True)
class ReplicaSpec:
    """One kind of replica and how many of it.

    Args:
        cost: time of its steps.
        kv_tokens: tokens its KV cache holds.
        scheduler: how it forms steps.
        count: replicas at the start.
        pool: name of the pool (the model it serves).
        role: ``both``, ``prefill`` or ``decode``.
        accelerators: of one replica.
        idle_w, busy_w: power of one replica.
        kv_bytes_per_token: moved per prompt token from prefill to decode replicas.
        ranks: data-parallel ranks that step together (each with the scheduler, the cache and the
            accelerators given); 1 for a replica of its own.
        lockstep: time of their common step; the slowest rank's where None.
        image_s: time of an image in the encoder, added to the step that begins its prompt.
        kind: number of this kind of replica, told apart in timelines and bills.
    """

    cost: StepCost
    kv_tokens: int
    scheduler: Scheduler = field(default_factory=Scheduler)
    count: int = 1
    pool: str = "default"
    role: str = "both"
    accelerators: int = 1
    idle_w: float = 0.0
    busy_w: float = 0.0
    kv_bytes_per_token: float = 0.0
    ranks: int = 1
    lockstep: LockstepCost | None = None
    image_s: float = 0.0
    kind: int = 0

    @property
    def blocks(self) -> int:
        """KV blocks of one replica."""
        return int(self.kv_tokens // self.scheduler.block_tokens)


@dataclass(frozen=True)
class Link:
    """The link between prefill and decode replicas of a pool.

    Args:
        bytes_per_s: bandwidth that all transfers of a decode replica share, one after the other.
        latency_s: before the first byte.
    """

    bytes_per_s: float
    latency_s: float = 0.0


@dataclass(frozen=True)
class Admission:
    """Admission control and load shedding of a pool.

    Args:
        max_outstanding: requests per live replica above which new ones are rejected.
        protected: share of that limit that priority 0 alone may use.
        dispatch_limit: requests a replica is given at once; more wait in one queue of the pool.
    """

    max_outstanding: float = float("inf")
    protected: float = 0.0
    dispatch_limit: int = 0


class Pool:
    """Replicas of one model behind a router.

    Args:
        name: of the pool.
        router: name of the router for new requests.
        requests: the table of all requests.
        random: source of the router's choices.
        admission: control of what comes in.
        link: between prefill and decode replicas.

    ``longest`` is the most tokens, prompt and output, that each of its replicas can hold;
    ``overhead_s`` passes from a request's arrival until it reaches the router.
    """

    def __init__(
        self,
        name: str,
        router: str,
        requests: RequestTable,
        random: Random,
        admission: Admission,
        link: Link | None,
    ) -> None:
        self.name, self.admission, self.link = name, admission, link
        self.entry: Router = make_router(router, requests, random)
        self.spare = LeastOutstanding(requests, random) if admission.dispatch_limit else None
        self.decoders = LeastOutstanding(requests, random)
        self.backlog: deque[int] = deque()
        self.handed: deque[int] = deque()
        self.members: list[Replica] = []
        self.outstanding = 0
        self.longest, self.overhead_s = sys.maxsize, 0.0

    def taking(self, decode: bool = False) -> list[Replica]:
        """Return the replicas that take requests now."""
        return [
            r for r in self.members if r.up and not r.draining and (r.role == "decode") == decode
        ]


def check_capacity(specs: list[ReplicaSpec]) -> None:
    """Raise InputError where a fleet cannot serve anything."""
    if not any(spec.count > 0 for spec in specs):
        raise InputError("the fleet has no replicas: at least one is needed")
    for spec in specs:
        if spec.blocks < 1:
            raise InputError(
                f"pool '{spec.pool}': the KV cache holds {spec.kv_tokens} tokens, less than one "
                f"block of {spec.scheduler.block_tokens}"
            )
