"""Prefix cache of one replica: blocks found by the hash of all that precedes them, oldest evicted.

Blocks that no running request holds stay in the cache and count as free: they are evicted, least
recently used first, as soon as running requests need the room (as in vLLM's block pool).
"""

from __future__ import annotations

from collections.abc import Sequence


class PrefixCache:
    """Hash blocks that are held by requests, and those that are kept for later.

    Args:
        blocks_per_hash: KV blocks that one hash block covers.
    """

    __slots__ = ("blocks_per_hash", "held", "idle")

    def __init__(self, blocks_per_hash: int) -> None:
        self.blocks_per_hash = blocks_per_hash
        self.held: dict[int, int] = {}
        self.idle: dict[int, None] = {}

    def hits(self, hashes: Sequence[int], most: int) -> int:
        """Return how many of the first ``most`` hash blocks are in the cache, without a gap."""
        held, idle, found = self.held, self.idle, 0
        for block in hashes[:most]:
            if block not in held and block not in idle:
                break
            found += 1
        return found

    def idle_among(self, hashes: Sequence[int], count: int) -> int:
        """Return how many of the first ``count`` hash blocks no request holds now."""
        return sum(1 for block in hashes[:count] if block not in self.held)

    def acquire(self, hashes: Sequence[int], count: int) -> int:
        """Hold the first ``count`` hash blocks; return how many KV blocks that takes from free."""
        taken = 0
        for block in hashes[:count]:
            if block in self.held:
                self.held[block] += 1
            else:
                del self.idle[block]
                self.held[block] = 1
                taken += self.blocks_per_hash
        return taken

    def register(self, block: int) -> bool:
        """Make a block just computed findable; False where its twin is there already."""
        if block in self.held or block in self.idle:
            return False
        self.held[block] = 1
        return True

    def release(self, blocks: Sequence[int]) -> int:
        """Let go of blocks, last first; return how many KV blocks become free."""
        freed = 0
        for block in reversed(blocks):
            self.held[block] -= 1
            if not self.held[block]:
                del self.held[block]
                self.idle[block] = None
                freed += self.blocks_per_hash
        return freed

    def shrink(self, free: int) -> None:
        """Evict the least recently used blocks that no longer fit into the free room."""
        room = free // self.blocks_per_hash
        while len(self.idle) > room:
            del self.idle[next(iter(self.idle))]

    def clear(self) -> None:
        """Forget everything, as when the machine fails."""
        self.held.clear()
        self.idle.clear()
