"""The fleet: pools of replicas behind routers, and the clock that moves them.

Arrivals and the ends of leaps go through one heap, in order of time, inside one SimPy process;
whatever else acts on the fleet (autoscaler, failures, restarts, samplers) is a SimPy process of
its own. SimPy spends some microseconds on each event (see docs/serving.md), which is too much for
every leap and cheap for everything that happens each few seconds.
"""

from __future__ import annotations

import heapq
import time
from typing import Any

from costsim.serving.fleet_core import ENTER, KIND, TIME_OUT, TRANSFERRED
from costsim.serving.losses import Losses
from costsim.serving.pool import Admission, Link, Pool, ReplicaSpec, check_capacity
from costsim.serving.replica import NEVER

__all__ = ["Admission", "Fleet", "Link", "Pool", "ReplicaSpec", "check_capacity", "simpy_process"]

PAUSE_S = 0.02
"""Wall-clock time between two looks at progress, limits and checkpoints."""
IDLE_WAKES = 100_000
"""Times that other processes may act in a row, no request moving, before the run is given up."""


class Fleet(Losses):
    """A fleet and its clock; see `FleetCore` for the arguments."""

    def run(self, horizon: float, most: int = 1 << 62) -> int:
        """Do all that happens up to ``horizon`` (s), at most ``most`` events; return how many."""
        heap, replicas, arrival = self.heap, self.replicas, self.requests.arrival
        pop, push, count = heapq.heappop, heapq.heappush, 0
        delayed = self.delayed
        upcoming = arrival[self.cursor] if self.cursor < self.given else NEVER
        while count < most:
            if heap and heap[0][0] < upcoming:
                at, code = heap[0]
                if at > horizon:
                    break
                pop(heap)
                if code < KIND:
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
                if delayed:
                    self.arrive_at(request, upcoming)
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

    def _happen(self, code: int) -> None:
        kind, request = divmod(code, KIND)
        kind *= KIND
        if kind == TIME_OUT:
            self._time_out(request)
        elif kind == TRANSFERRED:
            self._transferred(request)
        elif kind == ENTER:
            self.coming -= 1
            self.enter(request)

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
