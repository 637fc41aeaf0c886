"""A benchmark's client that keeps a limited number of requests in flight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.serving.traffic import Traffic

if TYPE_CHECKING:
    from costsim.serving.fleet_core import FleetCore


class LimitedClient:
    """Sends each request when it is due and fewer than the limit are in flight, in order.

    So do ``--max-concurrency`` of ``vllm bench serve`` and of ``sglang.bench_serving``: a semaphore
    around each request. A request's arrival is the moment it is sent, as the tools measure.

    Args:
        traffic: all requests; those beyond its ``max_in_flight`` wait here.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic, self.next = traffic, min(traffic.max_in_flight, len(traffic))

    @property
    def first(self) -> Traffic:
        """The requests that the limit lets through at once."""
        some = slice(0, self.traffic.max_in_flight)
        hashes = self.traffic.block_hashes
        return replace(self.traffic, block_hashes=None if hashes is None else hashes[some],
                       **_rows(self.traffic, some))

    def after(self, fleet: FleetCore, request: int, now: float) -> None:
        """A request has left the fleet: its place goes to the next one."""
        if self.next >= len(self.traffic):
            return
        one = slice(self.next, self.next + 1)
        rows = _rows(self.traffic, one)
        when, sent = max(float(rows["arrival"][0]), now), len(fleet.requests)
        columns = {**rows.pop("columns"), **rows, "arrival": [when]}
        hashes = self.traffic.block_hashes
        fleet.requests.extend({**columns, "prompt": np.maximum(columns["prompt"], 1)},
                              None if hashes is None else hashes[one])
        fleet.arrive_at(sent, when)
        self.next += 1


def _rows(traffic: Traffic, rows: slice) -> dict[str, Any]:
    """Return the columns of some requests."""
    return {"arrival": traffic.arrival[rows], "prompt": traffic.prompt[rows],
            "output": traffic.output[rows],
            "columns": {name: values[rows] for name, values in traffic.columns.items()}}
