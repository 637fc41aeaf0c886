"""What must hold after every event: no request, token or block appears or gets lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costsim.errors import CostsimError
from costsim.serving.requests import FINISHED, STATUS_NAMES, UNBORN

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet
    from costsim.serving.replica import Replica


class InvariantError(CostsimError):
    """The simulator broke one of its own rules: a mistake in costsim, not in the input."""


def check(fleet: Fleet) -> None:
    """Raise InvariantError where requests, blocks or times do not add up."""
    table = fleet.requests
    counts = [0] * len(STATUS_NAMES)
    for status in table.status:
        counts[status] += 1
    born = len(table) - counts[UNBORN]
    gone = sum(counts[FINISHED:])
    unread = sum(1 for i in range(fleet.cursor, fleet.given) if table.status[i] != UNBORN)
    if born - gone != fleet.outstanding or gone - unread != fleet.done:
        raise InvariantError(
            f"requests: {born} arrived, {gone} left, but {fleet.outstanding} are in the fleet"
        )
    for replica in fleet.replicas:
        _check_blocks(replica)
        _check_times(replica, fleet.now)


def _check_blocks(replica: Replica) -> None:
    size = replica.block_tokens
    growing = replica.batch.need(1) if replica.leap and replica.decodes else 0
    used = sum(replica.reserved.values()) + (growing if not replica.reserves else 0)
    if not replica.reserves:
        taken = dict(replica.taken)
        for request, computed in replica.computed.items():
            held = computed + taken.get(request, 0)
            if replica.batch.holds(request):
                held = replica.batch.cached(request)
            elif request in replica.held:
                held = replica.held[request]
            used += -(-held // size) - len(replica.shared.get(request, ())) * replica.hash_blocks
        if replica.cache is not None:
            used += len(replica.cache.held) * replica.hash_blocks
    if used + replica.free != replica.blocks or replica.free < 0:
        raise InvariantError(
            f"replica {replica.index}: {used} blocks used + {replica.free} free != {replica.blocks}"
        )


def _check_times(replica: Replica, now: float) -> None:
    table = replica.requests
    if replica.end < now - 1e-9:
        raise InvariantError(f"replica {replica.index}: its step ended before {now} s")
    for request in replica.order:
        if table.scheduled[request] < table.arrival[request]:
            raise InvariantError(f"request {request}: scheduled before it arrived")
