"""What acts on a fleet while it serves: autoscaler, failures, rolling restarts.

Each has the time of its next action and does it when a SimPy process says so. All state lies in
plain fields, so that a run can be saved and resumed.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from costsim.errors import InputError, unknown_name

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet, Pool, ReplicaSpec
    from costsim.serving.replica import Replica

NEVER = float("inf")


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < NEVER:
            raise InputError(f"{owner}: {name} = {value}: must be finite and above zero")


@dataclass
class Failures:
    """Replicas fail after exponential times and come back after exponential repairs.

    What they held is lost; the fleet sends those requests again.

    Args:
        mtbf_s: mean time between failures of one replica while it is up.
        mttr_s: mean time until it serves again (with loading of the weights).
        seed: of the times.
    """

    mtbf_s: float
    mttr_s: float
    seed: int = 0
    next_time: float = NEVER
    plan: list[tuple[float, int, bool]] = field(default_factory=list)
    known: int = 0
    failed: int = 0
    random: Random = field(default_factory=Random)

    def begin(self, fleet: Fleet, now: float) -> None:
        """Plan the first failure of each replica."""
        _positive("failures", mtbf_s=self.mtbf_s, mttr_s=self.mttr_s)
        if not self.known:
            self.random = Random(self.seed)
        self._meet(fleet, now)

    def _meet(self, fleet: Fleet, now: float) -> None:
        for replica in fleet.replicas[self.known :]:
            when = now + self.random.expovariate(1 / self.mtbf_s)
            heapq.heappush(self.plan, (when, replica.index, True))
        self.known = len(fleet.replicas)
        self.next_time = self.plan[0][0] if self.plan else NEVER

    def act(self, fleet: Fleet, now: float) -> None:
        """Fail or repair the replica whose time has come."""
        self._meet(fleet, now)
        while self.plan and self.plan[0][0] <= now:
            _, index, fails = heapq.heappop(self.plan)
            replica = fleet.replicas[index]
            mean = self.mttr_s if fails else self.mtbf_s
            if fails and replica.up and not replica.draining:
                fleet.fail(replica)
                self.failed += 1
                replica.broken = True
            elif not fails and replica.broken:
                replica.broken = False
                for member in replica.together():
                    fleet.open(member)
            else:
                mean = self.mtbf_s
                fails = False
            when = now + self.random.expovariate(1 / mean)
            heapq.heappush(self.plan, (when, index, not fails))
        self.next_time = self.plan[0][0] if self.plan else NEVER


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
        _positive("rolling restart", down_s=self.down_s, check_s=self.check_s)
        if self.next_time == NEVER and self.state == "waiting":
            self.next_time, self.last = max(now, self.start_s), len(fleet.replicas)

    def act(self, fleet: Fleet, now: float) -> None:
        """Go on with the replica whose turn it is."""
        if self.state == "down":
            for member in fleet.replicas[self.at].together():
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


METRICS = ("utilisation", "queue", "predictive")


@dataclass
class Autoscaler:
    """Adds and drains replicas of one pool.

    Args:
        pool: index of the pool.
        metric: ``utilisation`` (outstanding requests over ``slots``), ``queue`` (waiting requests
            per replica) or ``predictive`` (utilisation at the rate that the last two looks
            extrapolate to when a new replica would be ready).
        target: value of the metric that is aimed at.
        least, most: replicas.
        every_s: between two looks.
        cold_start_s: from the decision until a replica serves; it is paid from the decision on.
        cool_down_s: between two reductions.
        slots: requests at once that count as a full replica; 0 for its ``max_num_seqs``.
        role: of the replicas that are scaled.
    """

    pool: int = 0
    metric: str = "utilisation"
    target: float = 0.7
    least: int = 1
    most: int = 16
    every_s: float = 15.0
    cold_start_s: float = 120.0
    cool_down_s: float = 300.0
    slots: int = 0
    role: str = "both"
    next_time: float = NEVER
    starting: list[float] = field(default_factory=list)
    last_shrink: float = 0.0
    last_load: float = -1.0
    decisions: int = 0

    def begin(self, fleet: Fleet, now: float) -> None:
        """Plan the first look."""
        if self.metric not in METRICS:
            raise unknown_name("autoscaler metric", self.metric, METRICS)
        _positive("autoscaler", every_s=self.every_s, target=self.target)
        if not 1 <= self.least <= self.most:
            raise InputError(f"autoscaler: needs 1 <= least <= most, not {self.least}, {self.most}")
        if not any(r.role == self.role for r in fleet.pools[self.pool].members):
            raise InputError(f"autoscaler: the pool has no replicas of role '{self.role}'")
        if self.next_time == NEVER:
            self.next_time = now + self.every_s

    def act(self, fleet: Fleet, now: float) -> None:
        """Open what is ready, look, and decide."""
        pool = fleet.pools[self.pool]
        spec = self._spec(pool)
        while self.starting and self.starting[0] <= now:
            self._open_one(fleet, pool, spec, self.starting.pop(0))
        taking = [r for r in pool.taking(self.role == "decode") if self._leads(r)]
        wanted = min(self.most, max(self.least, self._wanted(fleet, pool, spec, taking)))
        have = len(taking) + len(self.starting)
        if wanted > have:
            self.decisions += 1
            self.starting += [now + self.cold_start_s] * (wanted - have)
        elif wanted < len(taking) and now - self.last_shrink >= self.cool_down_s:
            self._shrink(fleet, taking, len(taking) - wanted, now)
        self._retire(fleet, pool)
        self.next_time = now + self.every_s
        if self.starting:
            self.next_time = min(self.next_time, max(now, self.starting[0]))

    def _leads(self, replica: Replica) -> bool:
        """Whether a replica is of the role that is scaled, and the first of its lock-step group."""
        return replica.role == self.role and replica.together()[0] is replica

    def _spec(self, pool: Pool) -> ReplicaSpec:
        return next(r.spec for r in pool.members if r.role == self.role)

    def _wanted(self, fleet: Fleet, pool: Pool, spec: ReplicaSpec, taking: list[Replica]) -> int:
        slots = self.slots or spec.scheduler.max_num_seqs * spec.ranks
        waiting = len(pool.backlog)
        waiting += sum(m.waiting.size for r in taking for m in r.together())
        if self.metric == "queue":
            ratio = waiting / max(1, len(taking)) / self.target
            grown = len(taking) + 1 if ratio > 1 else len(taking)
            return max(grown, round(len(taking) * min(ratio, 2.0)) if ratio > 1 else 0) - (
                1 if waiting == 0 else 0
            )
        load = float(pool.outstanding)
        if self.metric == "predictive":
            rise = load - self.last_load if self.last_load >= 0 else 0.0
            self.last_load = load
            load += max(0.0, rise) * self.cold_start_s / self.every_s
        return -int(-load // (slots * self.target))

    def _open_one(self, fleet: Fleet, pool: Pool, spec: ReplicaSpec, ready: float) -> None:
        closed = next(
            (r for r in pool.members if not r.up and r.retired and self._leads(r)), None
        )
        members = closed.together() if closed else fleet.add_group(pool, spec)
        for replica in members:
            replica.retired = False
            if closed is not None:
                fleet.open(replica)
            replica.up_since = ready - self.cold_start_s

    def _shrink(self, fleet: Fleet, taking: list[Replica], count: int, now: float) -> None:
        self.decisions += 1
        self.last_shrink = now
        loads = {r.index: sum(m.load for m in r.together()) for r in taking}
        for leader in sorted(taking, key=lambda r: (loads[r.index], -r.index))[:count]:
            for replica in leader.together():
                fleet.close(replica)
                replica.retired = True

    def _retire(self, fleet: Fleet, pool: Pool) -> None:
        for replica in pool.members:
            if not (replica.retired and replica.up and self._leads(replica)):
                continue
            if not any(m.load or m.held for m in replica.together()):
                fleet.fail(replica)
