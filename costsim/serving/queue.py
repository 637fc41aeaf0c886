"""The waiting requests of a replica: first come first served, or by priority."""

from __future__ import annotations

import heapq
from collections import deque

from costsim.serving.requests import RequestTable


class FifoQueue:
    """First come, first served; a preempted request goes back to the front."""

    __slots__ = ("dropped", "entries", "size")

    def __init__(self) -> None:
        self.entries: deque[int] = deque()
        self.dropped: set[int] = set()
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
        entries, dropped = self.entries, self.dropped
        while entries:
            if not dropped or entries[0] not in dropped:
                return entries[0]
            dropped.discard(entries.popleft())
        return -1

    def pop(self) -> None:
        """Take out the request that `head` returned."""
        self.entries.popleft()
        self.size -= 1

    def drop(self, request: int) -> None:
        """Take out a request wherever it stands."""
        self.dropped.add(request)
        self.size -= 1

    def members(self) -> list[int]:
        """Return all waiting requests in order."""
        return [i for i in self.entries if i not in self.dropped]


class PriorityQueue:
    """Lowest priority number first, then the earliest arrival."""

    __slots__ = ("dropped", "entries", "requests", "size")

    def __init__(self, requests: RequestTable) -> None:
        self.entries: list[tuple[int, float, int]] = []
        self.dropped: set[int] = set()
        self.requests = requests
        self.size = 0

    def push(self, request: int, front: bool = False) -> None:
        """Add a request; its arrival, not ``front``, says where it stands."""
        self.size += 1
        key = (self.requests.priority[request], self.requests.arrival[request], request)
        heapq.heappush(self.entries, key)

    def head(self) -> int:
        """Return the request that is next, -1 where none waits."""
        while self.entries:
            request = self.entries[0][2]
            if request not in self.dropped:
                return request
            self.dropped.discard(request)
            heapq.heappop(self.entries)
        return -1

    def pop(self) -> None:
        """Take out the request that `head` returned."""
        heapq.heappop(self.entries)
        self.size -= 1

    def drop(self, request: int) -> None:
        """Take out a request wherever it stands."""
        self.dropped.add(request)
        self.size -= 1

    def members(self) -> list[int]:
        """Return all waiting requests in order."""
        return [entry[2] for entry in sorted(self.entries) if entry[2] not in self.dropped]
