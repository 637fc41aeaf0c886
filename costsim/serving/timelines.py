"""Queue, batch, KV use, replicas and power over time, sampled at equal distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet
    from costsim.serving.replica import Replica

NAMES = ("time_s", "queue", "batch", "kv_occupancy", "replicas", "power_w", "accelerators")


class Sampler:
    """Looks at the fleet every ``every_s`` seconds.

    Besides the columns `NAMES` there is ``accelerators_N`` for each kind N of replica, and with
    several pools ``queue_NAME``, ``batch_NAME`` and ``replicas_NAME`` for each.

    Args:
        every_s: distance of samples.
        start_s: time of the first.
    """

    def __init__(self, every_s: float, start_s: float = 0.0) -> None:
        self.every_s, self.next_time = every_s, start_s
        self.rows: list[dict[str, float]] = []

    def begin(self, fleet: Fleet, now: float) -> None:
        """Nothing to prepare."""

    def act(self, fleet: Fleet, now: float) -> None:
        """Take one sample."""
        row = dict.fromkeys(NAMES, 0.0) | {"time_s": now}
        used = blocks = 0
        several = len(fleet.pools) > 1
        for pool in fleet.pools:
            queue, batch, standing = len(pool.backlog) + len(pool.handed), 0, 0
            for replica in pool.members:
                if not replica.up:
                    continue
                standing += 1
                queue += replica.waiting.size + len(replica.incoming)
                batch += len(replica.order)
                used += replica.blocks - replica.free
                blocks += replica.blocks
                self._add(row, replica)
            found = {"queue": queue, "batch": batch, "replicas": standing}
            for name, value in found.items():
                row[name] += value
                if several:
                    row[f"{name}_{pool.name}"] = value
        row["kv_occupancy"] = used / blocks if blocks else 0.0
        self.rows.append(row)
        self.next_time = now + self.every_s

    @staticmethod
    def _add(row: dict[str, float], replica: Replica) -> None:
        """Add the power and the accelerators of a replica that stands."""
        spec = replica.spec
        busy = replica.end != float("inf")
        row["power_w"] += spec.busy_w if busy else spec.idle_w
        row["accelerators"] += spec.accelerators
        kind = f"accelerators_{spec.kind}"
        row[kind] = row.get(kind, 0.0) + spec.accelerators

    def columns(self) -> dict[str, np.ndarray]:
        """Return the samples as columns."""
        names = dict.fromkeys(NAMES) | {name: None for row in self.rows for name in row}
        return {name: np.array([row.get(name, 0.0) for row in self.rows]) for name in names}
