"""Routers: which replica of a pool serves a request. None of them may know an answer's length."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Protocol

from costsim.errors import unknown_name
from costsim.serving.requests import RequestTable

if TYPE_CHECKING:
    from costsim.serving.replica import Replica


class Router(Protocol):
    """Chooses among the replicas that it has been told of."""

    def add(self, replica: Replica) -> None:
        """A replica takes requests from now on."""

    def remove(self, replica: Replica) -> None:
        """A replica takes no more requests."""

    def pick(self, request: int) -> Replica:
        """Return the replica for a request; there is at least one."""

    def changed(self, replica: Replica, request: int, sign: int) -> None:
        """A replica got a request (+1) or is done with one (-1)."""


class RoundRobin:
    """One after the other."""

    def __init__(self, requests: RequestTable, random: Random) -> None:
        self.replicas: list[Replica] = []
        self.random, self.requests, self.turn = random, requests, 0

    def add(self, replica: Replica) -> None:
        self.replicas.append(replica)

    def remove(self, replica: Replica) -> None:
        self.replicas.remove(replica)

    def pick(self, request: int) -> Replica:
        self.turn += 1
        return self.replicas[(self.turn - 1) % len(self.replicas)]

    def changed(self, replica: Replica, request: int, sign: int) -> None:
        pass


class Uniform(RoundRobin):
    """Any replica, with equal probability."""

    def pick(self, request: int) -> Replica:
        return self.replicas[int(self.random.random() * len(self.replicas))]


class PowerOfTwo(RoundRobin):
    """The less loaded of two drawn at random (Mitzenmacher 2001)."""

    def pick(self, request: int) -> Replica:
        count, draw = len(self.replicas), self.random.random
        one = self.replicas[int(draw() * count)]
        other = self.replicas[int(draw() * count)]
        return other if other.load < one.load else one


class LeastOutstanding:
    """The replica with the fewest requests that wait or run; ties go to the one idle longest.

    Replicas stand in buckets by their count, so that a choice costs the same for 10 or 1000.
    """

    def __init__(self, requests: RequestTable, random: Random) -> None:
        self.buckets: list[dict[Replica, None]] = [{}]
        self.at: dict[Replica, int] = {}
        self.lowest = 0

    def add(self, replica: Replica) -> None:
        self._put(replica, replica.load)

    def _put(self, replica: Replica, load: int) -> None:
        while len(self.buckets) <= load:
            self.buckets.append({})
        self.buckets[load][replica] = None
        self.at[replica] = load
        self.lowest = min(self.lowest, load)

    def remove(self, replica: Replica) -> None:
        del self.buckets[self.at.pop(replica)][replica]

    def pick(self, request: int) -> Replica:
        while not self.buckets[self.lowest]:
            self.lowest += 1
        return next(iter(self.buckets[self.lowest]))

    def changed(self, replica: Replica, request: int, sign: int) -> None:
        at = self.at.get(replica)
        if at is not None:
            del self.buckets[at][replica]
            self._put(replica, replica.load)


class LeastKv:
    """The replica whose requests have the fewest prompt tokens, as far as the router knows."""

    def __init__(self, requests: RequestTable, random: Random) -> None:
        self.requests = requests
        self.tokens: dict[int, int] = {}
        self.known: dict[int, Replica] = {}
        self.heap: list[tuple[int, int]] = []

    def add(self, replica: Replica) -> None:
        self.known[replica.index] = replica
        self.tokens.setdefault(replica.index, 0)
        heapq.heappush(self.heap, (self.tokens[replica.index], replica.index))

    def remove(self, replica: Replica) -> None:
        del self.known[replica.index]

    def pick(self, request: int) -> Replica:
        heap = self.heap
        while heap[0][1] not in self.known or self.tokens[heap[0][1]] != heap[0][0]:
            heapq.heappop(heap)
        return self.known[heap[0][1]]

    def changed(self, replica: Replica, request: int, sign: int) -> None:
        index = replica.index
        held = self.tokens[index] = (
            self.tokens.get(index, 0) + sign * self.requests.prompt[request]
        )
        if index in self.known:
            heapq.heappush(self.heap, (held, index))
            if len(self.heap) > 64 + 8 * len(self.known):
                self.heap = [(self.tokens[i], i) for i in self.known]
                heapq.heapify(self.heap)


class Affinity(LeastOutstanding):
    """One replica for all requests with the same key, unless it is far busier than the others.

    Keys spread by rendezvous over a fixed ring of 64 points per replica (consistent hashing with
    bounded loads, Mirrokni et al. 2018, bound 1.25).
    """

    points, bound = 64, 1.25

    def __init__(self, requests: RequestTable, random: Random) -> None:
        super().__init__(requests, random)
        self.requests = requests
        self.ring: list[tuple[int, int, Replica]] = []
        self.total = 0

    def key(self, request: int) -> int | None:
        """Return what requests must share to go to one replica; None for no preference."""
        raise NotImplementedError

    def add(self, replica: Replica) -> None:
        super().add(replica)
        for point in range(self.points):
            place = zlib.crc32(f"{replica.index}:{point}".encode())
            heapq.heappush(self.ring, (place, replica.index, replica))
        self.ring.sort(key=lambda entry: entry[:2])

    def remove(self, replica: Replica) -> None:
        super().remove(replica)
        self.ring = [entry for entry in self.ring if entry[2] is not replica]

    def pick(self, request: int) -> Replica:
        from bisect import bisect_left

        key = self.key(request)
        if key is None:
            return super().pick(request)
        place = zlib.crc32(str(key).encode())
        at = bisect_left(self.ring, place, key=lambda entry: entry[0]) % len(self.ring)
        favourite = self.ring[at][2]
        most = 1 + self.bound * self.total / len(self.at)
        return favourite if favourite.load <= most else super().pick(request)

    def changed(self, replica: Replica, request: int, sign: int) -> None:
        super().changed(replica, request, sign)
        self.total += sign


class PrefixAffinity(Affinity):
    """Requests whose prompt starts with the same block go to the same replica."""

    def key(self, request: int) -> int | None:
        hashes = self.requests.block_hashes
        return hashes[request][0] if hashes and hashes[request] else None


class SessionAffinity(Affinity):
    """Requests of one session go to the same replica."""

    def key(self, request: int) -> int | None:
        session = self.requests.session[request]
        return session if session >= 0 else None


ROUTERS: dict[str, Callable[[RequestTable, Random], Router]] = {
    "round_robin": RoundRobin,
    "random": Uniform,
    "least_outstanding": LeastOutstanding,
    "power_of_two": PowerOfTwo,
    "least_kv": LeastKv,
    "prefix_affinity": PrefixAffinity,
    "session_affinity": SessionAffinity,
}


def make_router(name: str, requests: RequestTable, random: Random) -> Router:
    """Return a router by name; raises InputError with the nearest name where unknown."""
    if name not in ROUTERS:
        raise unknown_name("router", name, ROUTERS)
    return ROUTERS[name](requests, random)
