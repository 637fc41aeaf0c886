"""The requests of a run as columns: lengths and times of a million requests in flat arrays."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

UNBORN, WAITING, RUNNING, FINISHED, REJECTED, TIMED_OUT, FAILED = range(7)
STATUS_NAMES = ("unborn", "waiting", "running", "finished", "rejected", "timed out", "failed")

_INTEGERS = (
    "prompt", "output", "priority", "session", "generated", "cached", "preemptions", "replica",
    "retries", "status", "tenant", "pool", "images",
)  # fmt: skip
_TIMES = ("arrival", "scheduled", "first_token", "finished", "timeout")


class RequestTable:
    """Columns of requests; row ``i`` of every column belongs to request ``i``.

    Given: ``arrival`` (s), ``prompt`` and ``output`` (tokens), ``priority`` (lower goes first),
    ``session``, ``tenant``, ``pool`` (index of the model asked for), ``timeout`` (s after arrival),
    ``images``. Found: ``scheduled``, ``first_token``, ``finished`` (s, NaN until it happens),
    ``generated`` tokens, ``cached`` prompt tokens found in the prefix cache, ``preemptions``,
    ``retries``, ``replica`` that served it and ``status``.
    """

    __slots__ = (*_INTEGERS, *_TIMES, "block_hashes")

    def __init__(self) -> None:
        for name in _INTEGERS:
            setattr(self, name, array("q"))
        for name in _TIMES:
            setattr(self, name, array("d"))
        self.block_hashes: list[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.arrival)

    arrival: array[float]
    scheduled: array[float]
    first_token: array[float]
    finished: array[float]
    timeout: array[float]
    prompt: array[int]
    output: array[int]
    priority: array[int]
    session: array[int]
    generated: array[int]
    cached: array[int]
    preemptions: array[int]
    replica: array[int]
    retries: array[int]
    status: array[int]
    tenant: array[int]
    pool: array[int]
    images: array[int]

    def extend(self, columns: dict[str, Any], block_hashes: Sequence[Any] | None = None) -> None:
        """Append requests; columns that are not given get their defaults.

        Args:
            columns: arrays by name, ``arrival``, ``prompt`` and ``output`` at least.
            block_hashes: hashes of the prompt's blocks per request, for the prefix cache.
        """
        count = len(columns["arrival"])
        if block_hashes is not None or self.block_hashes is not None:
            if self.block_hashes is None:
                self.block_hashes = [()] * len(self)
            self.block_hashes.extend(block_hashes if block_hashes is not None else [()] * count)
        for name in _INTEGERS:
            default = -1 if name in ("session", "replica") else 0
            values = np.asarray(columns.get(name, np.full(count, default)), dtype=np.int64)
            getattr(self, name).frombytes(values.tobytes())
        for name in _TIMES:
            default_time = np.inf if name == "timeout" else np.nan
            times = np.asarray(columns.get(name, np.full(count, default_time)), dtype=np.float64)
            getattr(self, name).frombytes(times.tobytes())

    def column(self, name: str) -> np.ndarray:
        """Return a copy of a column as an array."""
        return np.array(getattr(self, name))
