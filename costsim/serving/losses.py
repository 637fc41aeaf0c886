"""What ends a request early: time-outs, and failures of the replica it is on."""

from __future__ import annotations

from costsim.serving.fleet_core import FleetCore
from costsim.serving.replica import Replica
from costsim.serving.requests import FAILED, FINISHED, TIMED_OUT, WAITING


class Losses(FleetCore):
    """Time-outs, failures and retries."""

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
            member.cut_off(self.now)
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
