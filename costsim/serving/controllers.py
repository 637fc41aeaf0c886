"""What scales a fleet while it serves.

It has the time of its next action and does it when a SimPy process says so. All state lies in plain
fields, so that a run can be saved and resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from costsim.errors import InputError, unknown_name
from costsim.serving.faults import NEVER, positive

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet, Pool, ReplicaSpec
    from costsim.serving.replica import Replica

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
        positive("autoscaler", every_s=self.every_s, target=self.target)
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
            (r for r in pool.members
             if not r.up and r.retired and not r.broken and self._leads(r)),
            None,
        )  # fmt: skip
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
