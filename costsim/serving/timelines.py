"""Queue, batch, KV use, replicas and power over time, sampled at equal distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from costsim.serving.fleet import Fleet

NAMES = ("time_s", "queue", "batch", "kv_occupancy", "replicas", "power_w", "accelerators")


class Sampler:
    """Looks at the fleet every ``every_s`` seconds.

    Args:
        every_s: distance of samples.
        start_s: time of the first.
    """

    def __init__(self, every_s: float, start_s: float = 0.0) -> None:
        self.every_s, self.next_time = every_s, start_s
        self.rows: list[tuple[float, ...]] = []

    def begin(self, fleet: Fleet, now: float) -> None:
        """Nothing to prepare."""

    def act(self, fleet: Fleet, now: float) -> None:
        """Take one sample."""
        queue = sum(len(pool.backlog) + len(pool.handed) for pool in fleet.pools)
        batch = used = blocks = standing = accelerators = 0
        power = 0.0
        for replica in fleet.replicas:
            if not replica.up:
                continue
            standing += 1
            queue += replica.waiting.size
            batch += len(replica.order)
            used += replica.blocks - replica.free
            blocks += replica.blocks
            accelerators += replica.spec.accelerators
            busy = replica.end != float("inf")
            power += replica.spec.busy_w if busy else replica.spec.idle_w
        share = used / blocks if blocks else 0.0
        self.rows.append((now, queue, batch, share, standing, power, accelerators))
        self.next_time = now + self.every_s

    def columns(self) -> dict[str, np.ndarray]:
        """Return the samples as columns."""
        values = np.array(self.rows, dtype=float).reshape(len(self.rows), len(NAMES))
        return dict(zip(NAMES, values.T, strict=True))
