"""What goes wrong in a fleet: nodes that fail, and restarts that are planned.

Each has the time of its next action and does it when a SimPy process says so. All state lies in
plain fields, so that a run can be saved and resumed.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from costsim.errors import InputError

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet
    from costsim.serving.replica import Replica

NEVER = float("inf")


def positive(owner: str, **values: float) -> None:
    """Raise InputError where a value is not finite or not above zero."""
    for name, value in values.items():
        if not 0 < value < NEVER:
            raise InputError(f"{owner}: {name} = {value}: must be finite and above zero")


@dataclass
class Failures:
    """Nodes fail after exponential times and come back after exponential repairs.

    What their replicas held is lost; the fleet sends those requests again. Replicas of one kind
    fill nodes one after the other, and a replica over several nodes is down while any of them is.

    Args:
        mtbf_s: mean time between failures of one node while it is up.
        mttr_s: mean time until it serves again (with loading of the weights).
        seed: of the times.
        node_accelerators: of a node; 0: each replica is a node of its own.
    """

    mtbf_s: float
    mttr_s: float
    seed: int = 0
    node_accelerators: int = 0
    next_time: float = NEVER
    plan: list[tuple[float, int, bool]] = field(default_factory=list)
    nodes: list[list[int]] = field(default_factory=list)
    filling: dict[int, tuple[int, int]] = field(default_factory=dict)
    known: int = 0
    failed: int = 0
    random: Random = field(default_factory=Random)

    def begin(self, fleet: Fleet, now: float) -> None:
        """Plan the first failure of each node."""
        positive("failures", mtbf_s=self.mtbf_s, mttr_s=self.mttr_s)
        if not self.known:
            self.random = Random(self.seed)
        self._meet(fleet, now)

    def _meet(self, fleet: Fleet, now: float) -> None:
        while self.known < len(fleet.replicas):
            group = fleet.replicas[self.known].together()
            self._place(group, now)
            self.known += len(group)
        self.next_time = self.plan[0][0] if self.plan else NEVER

    def _place(self, group: list[Replica], now: float) -> None:
        """Put a replica (all its ranks) on the node of its kind that has room, or on new ones."""
        spec, index = group[0].spec, group[0].index
        size = spec.accelerators * len(group)
        node, room = self.filling.get(spec.kind, (-1, 0))
        if size <= room:
            self.nodes[node].append(index)
            self.filling[spec.kind] = (node, room - size)
            return
        whole = self.node_accelerators or size
        for _ in range(-(-size // whole)):
            self.nodes.append([index])
            when = now + self.random.expovariate(1 / self.mtbf_s)
            heapq.heappush(self.plan, (when, len(self.nodes) - 1, True))
        self.filling[spec.kind] = (len(self.nodes) - 1, -size % whole)

    def act(self, fleet: Fleet, now: float) -> None:
        """Fail or repair the nodes whose time has come."""
        self._meet(fleet, now)
        while self.plan and self.plan[0][0] <= now:
            _, node, fails = heapq.heappop(self.plan)
            self.failed += fails
            for index in self.nodes[node]:
                if fails:
                    self._fail(fleet, fleet.replicas[index])
                else:
                    self._repair(fleet, fleet.replicas[index])
            mean = self.mttr_s if fails else self.mtbf_s
            when = now + self.random.expovariate(1 / mean)
            heapq.heappush(self.plan, (when, node, not fails))
        self.next_time = self.plan[0][0] if self.plan else NEVER

    @staticmethod
    def _fail(fleet: Fleet, replica: Replica) -> None:
        replica.broken += 1
        if replica.up:
            replica.down = not replica.retired
            fleet.fail(replica)

    @staticmethod
    def _repair(fleet: Fleet, replica: Replica) -> None:
        replica.broken -= 1
        if not replica.broken and replica.down:
            replica.down = False
            for member in replica.together():
                fleet.open(member)


@dataclass
class RollingRestart:
    """Replicas are drained, restarted and opened again, one after the other.

    Args:
        start_s: when the first is drained.
        down_s: from drained to serving again.
        drain_limit_s: after which requests still on it are lost and sent again.
        check_s: how often a draining replica is looked at.
    """

    start_s: float
    down_s: float
    drain_limit_s: float = 600.0
    check_s: float = 0.5003
    next_time: float = NEVER
    at: int = -1
    state: str = "waiting"
    since: float = 0.0
    last: int = -1

    def begin(self, fleet: Fleet, now: float) -> None:
        """Plan the first restart."""
        positive("rolling restart", down_s=self.down_s, check_s=self.check_s)
        if self.next_time == NEVER and self.state == "waiting":
            self.next_time, self.last = max(now, self.start_s), len(fleet.replicas)

    def act(self, fleet: Fleet, now: float) -> None:
        """Go on with the replica whose turn it is."""
        if self.state == "down":
            replica = fleet.replicas[self.at]
            replica.down = bool(replica.broken)  # A node that has failed meanwhile opens it later.
            if not replica.down:
                for member in replica.together():
                    fleet.open(member)
            self.state = "waiting"
        if self.state == "waiting" and not self._next(fleet, now):
            return
        replica = fleet.replicas[self.at]
        if not replica.up:
            self.state = "waiting"
        elif self._empty(replica) or now - self.since > self.drain_limit_s:
            fleet.fail(replica)
            self.state, self.next_time = "down", now + self.down_s
            return
        self.next_time = now + self.check_s

    @staticmethod
    def _empty(replica: Replica) -> bool:
        return not any(m.load or m.held for m in replica.together())

    def _next(self, fleet: Fleet, now: float) -> bool:
        self.at += 1
        if self.at >= self.last:
            self.next_time = NEVER
            return False
        replica = fleet.replicas[self.at]
        if replica.together()[0] is not replica:
            return self._next(fleet, now)
        if replica.up and not replica.draining:
            for member in replica.together():
                fleet.close(member)
            self.state, self.since = "draining", now
        return True
