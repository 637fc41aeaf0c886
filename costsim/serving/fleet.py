"""The fleet: pools of replicas behind routers, and the clock that moves them.

Arrivals and the ends of leaps go through one heap, in order of time, inside one SimPy process;
whatever else acts on the fleet (autoscaler, failures, restarts, samplers) is a SimPy process of
its own. SimPy spends some microseconds on each event (see docs/serving.md), which is too much for
every leap and cheap for everything that happens each few seconds.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from costsim.errors import InputError
from costsim.serving.lockstep import Lockstep, LockstepCost, Rank, SlowestRank
from costsim.serving.replica import NEVER, Replica
from costsim.serving.requests import FAILED, FINISHED, REJECTED, TIMED_OUT, WAITING, RequestTable
from costsim.serving.routers import LeastOutstanding, Router, make_router
from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import StepCost

if TYPE_CHECKING:
    from costsim.serving.sessions import Conversations

_KIND = 1 << 40
PAUSE_S = 0.02
"""Wall-clock time between two looks at progress, limits and checkpoints."""
IDLE_WAKES = 100_000
"""Times that other processes may act in a row while no request moves, before the run is given up."""
TIME_OUT, TRANSFERRED, ENTER, SUBMIT = (k * _KIND for k in (1, 2, 3, 4))


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
    """

    cost: StepCost
    kv_tokens: int
    scheduler: Scheduler = Scheduler()
    count: int = 1
    pool: str = "default"
    role: str = "both"
    accelerators: int = 1
    idle_w: float = 0.0
    busy_w: float = 0.0
    kv_bytes_per_token: float = 0.0
    ranks: int = 1
    lockstep: LockstepCost | None = None

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

    def taking(self, decode: bool = False) -> list[Replica]:
        """Return the replicas that take requests now."""
        return [
            r for r in self.members if r.up and not r.draining and (r.role == "decode") == decode
        ]


class Fleet:
    """All pools, the requests, and the heap of what happens next.

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
        conversations: Conversations | None = None,
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
        self.overhead = 0.0

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
        replica.up = False
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

    # --- the clock --------------------------------------------------------------------------

    def run(self, horizon: float, most: int = 1 << 62) -> int:
        """Do all that happens up to ``horizon`` (s), at most ``most`` events; return how many."""
        heap, replicas, arrival = self.heap, self.replicas, self.requests.arrival
        pop, push, count = heapq.heappop, heapq.heappush, 0
        overhead = self.overhead
        upcoming = arrival[self.cursor] if self.cursor < self.given else NEVER
        while count < most:
            if heap and heap[0][0] < upcoming:
                at, code = heap[0]
                if at > horizon:
                    break
                pop(heap)
                if code < _KIND:
                    replica = replicas[code]
                    if replica.end != at or replica.posted != at:
                        continue
                    self.now = at
                    replica.wake(at)
                    replica.posted = end = replica.end
                    if end != NEVER:
                        push(heap, (end, code))
                else:
                    self.now = at
                    self._happen(code)
            elif upcoming <= horizon and upcoming != NEVER:
                request = self.cursor
                self.cursor += 1
                self.now = upcoming
                if overhead:
                    self._enter_later(request, overhead)
                else:
                    self.enter(request)
                upcoming = arrival[self.cursor] if self.cursor < self.given else NEVER
            else:
                break
            count += 1
            if self.audit is not None:
                self.audit(self)
        return count

    @property
    def finished(self) -> bool:
        """Whether no request is in the fleet and none will come."""
        return not self.outstanding and not self.coming and self.cursor >= self.given

    def next_event(self) -> float:
        """Return the time of what happens next (s)."""
        upcoming = self.requests.arrival[self.cursor] if self.cursor < self.given else NEVER
        return min(upcoming, self.heap[0][0] if self.heap else NEVER)

    def _post(self, replica: Replica) -> None:
        if replica.end != replica.posted:
            replica.posted = replica.end
            if replica.end != NEVER:
                heapq.heappush(self.heap, (replica.end, replica.index))

    def _happen(self, code: int) -> None:
        kind, request = divmod(code, _KIND)
        kind *= _KIND
        if kind == TIME_OUT:
            self._time_out(request)
        elif kind == TRANSFERRED:
            self._transferred(request)
        elif kind == ENTER:
            self.coming -= 1
            self.enter(request)

    def _enter_later(self, request: int, delay: float) -> None:
        self.coming += 1
        heapq.heappush(self.heap, (self.now + delay, ENTER + request))

    def arrive_at(self, request: int, when: float) -> None:
        """Have a request that is appended to the table arrive at a time."""
        self.coming += 1
        heapq.heappush(self.heap, (when, ENTER + request))

    # --- requests ---------------------------------------------------------------------------

    def enter(self, request: int) -> None:
        """A request reaches the router of its pool."""
        requests = self.requests
        pool = self.pools[requests.pool[request]]
        self.outstanding += 1
        pool.outstanding += 1
        if requests.status[request] == REJECTED:
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
            if self.requests.status[pool.backlog[0]] != WAITING or self._route(pool, pool.backlog[0]):
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

    def _transferred(self, request: int) -> None:
        decoder, due = self.fetching.get(request, (None, 0.0))
        if decoder is None or due != self.now:
            return  # A transfer that a failure has cut off.
        del self.fetching[request]
        source = self.source.pop(request)
        source.release_held(request, self.now)
        self._post(source)
        decoder.deliver(request, self.now)
        self._post(decoder)

    # --- time-outs and failures -------------------------------------------------------------

    def _time_out(self, request: int) -> None:
        requests = self.requests
        if requests.status[request] >= FINISHED:
            return
        pool = self.pools[requests.pool[request]]
        where = requests.replica[request]
        if where >= 0 and request not in pool.backlog:
            self._withdraw(request)
        self._leave(pool, request, TIMED_OUT)
        self._dispatch(pool)

    def _withdraw(self, request: int) -> None:
        """Take a request off the replicas that hold it."""
        source = self.source.pop(request, None)
        self.fetching.pop(request, None)
        self._unhand(request)
        replica = self.replicas[self.requests.replica[request]]
        if source is not None:
            source.cancel(request, self.now)
            self._post(source)
        if replica is not source:
            replica.cancel(request, self.now)
            self._post(replica)
            self._take(replica, request)

    def _unhand(self, request: int) -> None:
        """Take a request out of those that wait for any decode replica."""
        handed = self.pools[self.requests.pool[request]].handed
        if request in handed:
            handed.remove(request)

    def fail(self, replica: Replica) -> None:
        """A replica is gone with all that it held; its requests are sent again or lost.

        Ranks in lock-step go down together.
        """
        for member in replica.together():
            self.close(member)
        for member in replica.together():
            self._fail_one(member)

    def _fail_one(self, replica: Replica) -> None:
        self.shut(replica)
        lost = replica.fail()
        self._post(replica)
        for request in lost:
            self._lose(replica, request)

    def _lose(self, replica: Replica, request: int) -> None:
        requests, source = self.requests, self.source.get(request)
        if source is not replica:
            self._take(replica, request)
        if source is not None:
            self._abandon(replica, source, request)
        pool = replica.pool
        requests.generated[request] = 0
        requests.first_token[request] = float("nan")
        if requests.retries[request] >= self.retries:
            self._leave(pool, request, FAILED)
            return
        requests.retries[request] += 1
        requests.replica[request] = -1
        requests.status[request] = WAITING
        if pool.backlog or not self._route(pool, request):
            pool.backlog.append(request)

    def _abandon(self, failed: Replica, source: Replica, request: int) -> None:
        """Clear the other half of a transfer whose one half has failed."""
        del self.source[request]
        self.fetching.pop(request, None)
        self._unhand(request)
        other = self.replicas[self.requests.replica[request]] if failed is source else source
        if other is failed:
            return
        other.cancel(request, self.now)
        self._post(other)
        if failed is source:
            self._take(other, request)


def simpy_process(fleet: Fleet, env: Any, done: Any, pause: Any = None) -> Any:
    """Drive the fleet inside a SimPy environment, up to each event of the other processes.

    Args:
        fleet: the fleet.
        env: the SimPy environment.
        done: event to succeed when nothing is left to do.
        pause: called about 20 times a second with the fleet; ends the run where it returns True.
    """
    tick, chunk = time.monotonic(), 1 << 62 if pause is None else 1024
    idle = 0
    while True:
        horizon = env.peek()
        more = True
        while more:
            count = fleet.run(horizon, chunk)
            more = count >= chunk
            idle = 0 if count else idle + 1
            if pause is not None and time.monotonic() - tick > PAUSE_S:
                tick = time.monotonic()
                if pause(fleet):
                    done.succeed()
                    return
        if fleet.finished or horizon == NEVER or idle > IDLE_WAKES:
            done.succeed()
            return
        yield env.timeout(max(0.0, horizon - env.now))


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
