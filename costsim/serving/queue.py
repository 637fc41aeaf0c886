"""The waiting requests of a replica: first come first served, or by priority."""

from __future__ import annotations

import heapq
from collections import deque

from costsim.serving.requests import RequestTable


class FifoQueue:
    """First come, first served; a preempted request goes back to the front."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: deque[int] = deque()
        self.size = 0

    def push(self, request: int, front: bool = False) -> None:
        """Add a request."""
        self.size += 1
        if front:
            self.entries.appendleft(request)
        else:
            self.entries.append(request)

    def head(self) -> int:
        """Return the request that is next, -1 where none waits."""
        return self.entries[0] if self.entries else -1

    def pop(self) -> None:
        """Take out the request that `head` returned."""
        self.entries.popleft()
        self.size -= 1

    def drop(self, request: int) -> None:
        """Take out a request wherever it stands."""
        self.entries.remove(request)
        self.size -= 1

    def members(self) -> list[int]:
        """Return all waiting requests in order."""
        return list(self.entries)


class PriorityQueue:
    """Lowest priority number first, then the earliest arrival."""

    __slots__ = ("entries", "requests", "size")

    def __init__(self, requests: RequestTable) -> None:
        self.entries: list[tuple[int, float, int]] = []
        self.requests = requests
        self.size = 0

    def push(self, request: int, front: bool = False) -> None:
        """Add a request; its arrival, not ``front``, says where it stands."""
        self.size += 1
        heapq.heappush(self.entries, self._key(request))

    def head(self) -> int:
        """Return the request that is next, -1 where none waits."""
        return self.entries[0][2] if self.entries else -1

    def pop(self) -> None:
        """Take out the request that `head` returned."""
        heapq.heappop(self.entries)
        self.size -= 1

    def drop(self, request: int) -> None:
        """Take out a request wherever it stands."""
        self.entries.remove(self._key(request))
        heapq.heapify(self.entries)
        self.size -= 1

    def members(self) -> list[int]:
        """Return all waiting requests in order."""
        return [entry[2] for entry in sorted(self.entries)]

    def _key(self, request: int) -> tuple[int, float, int]:
        return self.requests.priority[request], self.requests.arrival[request], request
