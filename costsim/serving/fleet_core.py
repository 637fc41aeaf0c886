"""The fleet's pools and the way of a request through them, from its router to its last token."""

from __future__ import annotations

import heapq
from random import Random
from typing import Any, Protocol

from costsim.serving.lockstep import Lockstep, Rank, SlowestRank
from costsim.serving.pool import Admission, Link, Pool, ReplicaSpec
from costsim.serving.replica import NEVER, Replica
from costsim.serving.requests import FINISHED, REJECTED, WAITING, RequestTable

KIND = 1 << 40
"""Codes of events below it are replicas; above, a kind and the request it is about."""
TIME_OUT, TRANSFERRED, ENTER = (k * KIND for k in (1, 2, 3))


class Follower(Protocol):
    """Makes the requests that follow others."""

    def after(self, fleet: Any, request: int, now: float) -> None:
        """A request has left the fleet: plan the one that follows, if any."""


class FleetCore:
    """All pools, the requests, and the heap of what happens next; `Fleet` moves the clock.

    Args:
        requests: those that arrive by themselves, sorted by arrival.
        seed: of the routers' choices.
        leaps: whether replicas leap over steps (else the oracle's single steps).
        hash_tokens: tokens of a prefix hash block.
        retries: times that a request lost by a failure is sent again.
        conversations: makes follow-up requests, None where there are none.
    """

    def __init__(
        self,
        requests: RequestTable,
        seed: int = 0,
        leaps: bool = True,
        hash_tokens: int = 512,
        retries: int = 3,
        conversations: Follower | None = None,
    ) -> None:
        self.requests, self.leaps, self.hash_tokens = requests, leaps, hash_tokens
        self.random = Random(seed)
        self.retries, self.conversations = retries, conversations
        self.replicas: list[Replica] = []
        self.pools: list[Pool] = []
        self.heap: list[tuple[float, int]] = []
        self.now = 0.0
        self.cursor, self.given = 0, len(requests)
        self.outstanding = self.coming = self.done = 0
        self.source: dict[int, Replica] = {}
        self.fetching: dict[int, tuple[Replica, float]] = {}
        self.link_free: dict[int, float] = {}
        self.audit: Any = None
        self.delayed = False

    # --- building ---------------------------------------------------------------------------

    def add_pool(
        self, name: str, router: str, admission: Admission | None = None, link: Link | None = None
    ) -> Pool:
        """Add an empty pool and return it."""
        pool = Pool(name, router, self.requests, self.random, admission or Admission(), link)
        self.pools.append(pool)
        return pool

    def _add_replica(self, pool: Pool, spec: ReplicaSpec) -> Replica:
        kind = Rank if spec.ranks > 1 else Replica
        replica = kind(
            len(self.replicas), spec.cost, spec.scheduler, spec.blocks, self.requests, self,
            spec.role, self.hash_tokens, self.leaps,
        )  # fmt: skip
        replica.spec, replica.pool = spec, pool
        replica.up, replica.image_s = False, spec.image_s
        self.replicas.append(replica)
        pool.members.append(replica)
        return replica

    def add_group(self, pool: Pool, spec: ReplicaSpec) -> list[Replica]:
        """Add a replica, or the ranks that step together; they take requests at once."""
        members = [self._add_replica(pool, spec) for _ in range(spec.ranks)]
        if spec.ranks > 1:
            lockstep = spec.lockstep or SlowestRank(spec.cost)
            Lockstep([m for m in members if isinstance(m, Rank)], lockstep, self.leaps)
        for member in members:
            self.open(member)
        return members

    def open(self, replica: Replica) -> None:
        """Let a replica take requests; those that waited for one go to it."""
        pool = replica.pool
        if replica.up and not replica.draining:
            return
        if not replica.up:
            replica.up_since = self.now
        replica.up, replica.draining = True, False
        if replica.role == "decode":
            pool.decoders.add(replica)
            while pool.handed:
                self._to_decoder(pool, pool.handed.popleft())
            return
        pool.entry.add(replica)
        if pool.spare is not None:
            pool.spare.add(replica)
        self._dispatch(pool)

    def close(self, replica: Replica) -> None:
        """Let a replica take no more requests."""
        if not replica.up or replica.draining:
            return
        replica.draining = True
        pool = replica.pool
        if replica.role == "decode":
            pool.decoders.remove(replica)
            return
        pool.entry.remove(replica)
        if pool.spare is not None:
            pool.spare.remove(replica)

    def shut(self, replica: Replica) -> None:
        """Count a replica as gone from now on."""
        if replica.up:
            replica.up_before += self.now - replica.up_since
            replica.up = False

    def _post(self, replica: Replica) -> None:
        if replica.end != replica.posted:
            replica.posted = replica.end
            if replica.end != NEVER:
                heapq.heappush(self.heap, (replica.end, replica.index))

    def arrive_at(self, request: int, when: float) -> None:
        """Have a request of the table arrive at a time, and reach its router a little later."""
        self.coming += 1
        delay = self.pools[self.requests.pool[request]].overhead_s
        heapq.heappush(self.heap, (when + delay, ENTER + request))

    # --- requests ---------------------------------------------------------------------------

    def enter(self, request: int) -> None:
        """A request reaches the router of its pool."""
        requests = self.requests
        pool = self.pools[requests.pool[request]]
        self.outstanding += 1
        pool.outstanding += 1
        tokens = requests.prompt[request] + requests.output[request]
        if requests.status[request] == REJECTED or tokens > pool.longest:
            self._leave(pool, request, REJECTED)
            return
        requests.status[request] = WAITING
        if pool.admission.max_outstanding != NEVER and self._shed(pool, request):
            self._leave(pool, request, REJECTED)
            return
        timeout = requests.timeout[request]
        if timeout != NEVER and not requests.retries[request]:
            due = requests.arrival[request] + timeout
            heapq.heappush(self.heap, (max(due, self.now), TIME_OUT + request))
        if pool.backlog or not self._route(pool, request):
            pool.backlog.append(request)

    def _shed(self, pool: Pool, request: int) -> bool:
        most = pool.admission.max_outstanding * len(pool.taking())
        if self.requests.priority[request] > 0:
            most *= 1 - pool.admission.protected
        return pool.outstanding > most

    def _route(self, pool: Pool, request: int) -> bool:
        """Send a request to a replica; False where none takes it now."""
        limit = pool.admission.dispatch_limit
        if limit and pool.spare is not None:
            if not pool.spare.at:
                return False
            replica = pool.entry.pick(request)
            if replica.load >= limit:
                replica = pool.spare.pick(request)
                if replica.load >= limit:
                    return False
        else:
            try:
                replica = pool.entry.pick(request)
            except (IndexError, ZeroDivisionError):
                return False
        self._give(pool, replica, request)
        return True

    def _give(self, pool: Pool, replica: Replica, request: int) -> None:
        self.requests.replica[request] = replica.index
        replica.load += 1
        pool.entry.changed(replica, request, 1)
        if pool.spare is not None:
            pool.spare.changed(replica, request, 1)
        replica.submit(request, self.now)
        self._post(replica)

    def _take(self, replica: Replica, request: int) -> None:
        replica.load -= 1
        pool = replica.pool
        if replica.role == "decode":
            pool.decoders.changed(replica, request, -1)
            return
        pool.entry.changed(replica, request, -1)
        if pool.spare is not None:
            pool.spare.changed(replica, request, -1)

    def _dispatch(self, pool: Pool) -> None:
        while pool.backlog:
            first = pool.backlog[0]
            if self.requests.status[first] != WAITING or self._route(pool, first):
                pool.backlog.popleft()
            else:
                return

    def _leave(self, pool: Pool, request: int, status: int) -> None:
        self.requests.status[request] = status
        self.outstanding -= 1
        pool.outstanding -= 1
        self.done += 1
        if self.conversations is not None:
            self.conversations.after(self, request, self.now)

    # --- what replicas tell -----------------------------------------------------------------

    def finish(self, replica: Replica, request: int, now: float) -> None:
        """A request has all its tokens."""
        self._take(replica, request)
        self._leave(replica.pool, request, FINISHED)
        if replica.pool.backlog:
            self._dispatch(replica.pool)

    def hand_over(self, replica: Replica, request: int, now: float) -> None:
        """A prompt is read; a decode replica is to fetch its cache."""
        self._take(replica, request)
        self.source[request] = replica
        self._to_decoder(replica.pool, request)
        self._dispatch(replica.pool)

    def _to_decoder(self, pool: Pool, request: int) -> None:
        if request not in self.source:
            return
        if not pool.decoders.at:
            pool.handed.append(request)
            return
        decoder = pool.decoders.pick(request)
        self.requests.replica[request] = decoder.index
        decoder.load += 1
        pool.decoders.changed(decoder, request, 1)
        decoder.submit(request, self.now, remote=True)
        self._post(decoder)

    def fetch(self, replica: Replica, request: int, now: float) -> None:
        """A decode replica has room: the cache goes over its link, after those before it."""
        link = replica.pool.link
        source = self.source[request]
        if request not in source.held:
            return  # The source has just failed, and is about to take this request back.
        amount = source.held[request] * source.spec.kv_bytes_per_token
        start = max(now, self.link_free.get(replica.index, 0.0))
        seconds = amount / link.bytes_per_s if link else 0.0
        self.link_free[replica.index] = start + seconds
        latency = link.latency_s if link else 0.0
        due = start + seconds + latency
        self.fetching[request] = (replica, due)
        heapq.heappush(self.heap, (due, TRANSFERRED + request))
