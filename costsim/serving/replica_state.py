"""What one replica holds: its queue, its running requests and their KV blocks."""

from __future__ import annotations

from typing import Any, Protocol

from costsim.serving.batch import DecodeBatch, LeapBatch, StepBatch
from costsim.serving.intervals import IntervalCounter
from costsim.serving.prefix_cache import PrefixCache
from costsim.serving.queue import FifoQueue, PriorityQueue
from costsim.serving.requests import RUNNING, WAITING, RequestTable
from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import StepCost

NEVER = float("inf")


class Host(Protocol):
    """What a replica tells the fleet it belongs to."""

    def finish(self, replica: Any, request: int, now: float) -> None:
        """A request has all its tokens."""

    def hand_over(self, replica: Any, request: int, now: float) -> None:
        """A prefill replica has the first token; the cache waits to be fetched."""

    def fetch(self, replica: Any, request: int, now: float) -> None:
        """A decode replica has room for a request's cache and asks for it."""

class ReplicaState:
    """Queue, KV blocks and decode batch of one replica.

    Args:
        index: number in the fleet.
        cost: time of its steps.
        scheduler: how it forms them.
        blocks: KV blocks it has.
        requests: the table of all requests.
        host: told what happens.
        role: ``both``, ``prefill`` or ``decode``.
        hash_tokens: tokens covered by one hash of ``requests.block_hashes``.
        leaps: whether to leap over steps; else every step is taken by itself.
    """

    def __init__(
        self,
        index: int,
        cost: StepCost,
        scheduler: Scheduler,
        blocks: int,
        requests: RequestTable,
        host: Host,
        role: str = "both",
        hash_tokens: int = 512,
        leaps: bool = True,
    ) -> None:
        self.index, self.cost, self.scheduler = index, cost, scheduler
        self.blocks, self.requests, self.host, self.role = blocks, requests, host, role
        self.leaps, self.up, self.draining, self.load = leaps, True, False, 0
        self.block_tokens = scheduler.block_tokens
        self.max_seqs, self.budget = scheduler.max_num_seqs, scheduler.token_budget
        self.reserves = scheduler.policy in ("orca", "static")
        self.floor = int(scheduler.watermark * blocks)
        self.hash_tokens = hash_tokens
        self.hash_blocks = max(1, hash_tokens // self.block_tokens)
        keeps = scheduler.prefix_cache and not self.reserves
        self.cache = PrefixCache(self.hash_blocks) if keeps else None
        self.ahead = scheduler.ahead
        self.unequal = getattr(cost, "unequal", None)
        self.prioritised = scheduler.order == "priority"
        self.intervals = IntervalCounter()
        self.busy_s = self.block_s = self.batch_s = 0.0
        self.prompt_tokens = self.output_tokens = self.steps = 0
        self.up_since, self.up_before = 0.0, 0.0
        self.broken = 0  # nodes of it that have failed
        self.down = self.retired = False
        self.image_s = 0.0
        self.reset()

    spec: Any
    pool: Any

    def up_time(self, now: float) -> float:
        """Return the time this replica has stood ready up to ``now`` (s)."""
        return self.up_before + (now - self.up_since if self.up else 0.0)

    def forget(self, now: float) -> None:
        """Count from now on, as if the replica had just begun; what it holds stays."""
        under_way = now - self.start if self.end != NEVER else 0.0
        size = self.batch.size if self.decodes else 0
        self.intervals = IntervalCounter()
        self.busy_s, self.batch_s = -under_way, -under_way * size
        self.block_s = -under_way * (self.blocks - self.free)
        self.prompt_tokens = self.output_tokens = self.steps = 0
        self.up_since, self.up_before = now, 0.0

    def encoding_s(self) -> float:
        """Return the encoder's time for the images of the prompts that begin in this step."""
        requests, computed = self.requests, self.computed
        return self.image_s * sum(
            requests.images[i] for i, _ in self.taken
            if not requests.generated[i] and computed[i] == requests.cached[i]
        )  # fmt: skip

    def reset(self) -> None:
        """Empty the replica; what it has counted so far stays."""
        self.end, self.posted = NEVER, NEVER
        self.start = self.stall_s = 0.0
        self.free = self.blocks
        self.waiting = PriorityQueue(self.requests) if self.prioritised else FifoQueue()
        grows = not self.reserves
        self.batch: DecodeBatch = (
            LeapBatch(self.block_tokens, grows) if self.leaps
            else StepBatch(self.block_tokens, grows)
        )  # fmt: skip
        self.order: dict[int, None] = {}
        self.prefilling: list[int] = []
        self.computed: dict[int, int] = {}
        self.taken: list[tuple[int, int]] = []
        self.reserved: dict[int, int] = {}
        self.shared: dict[int, list[int]] = {}
        self.remote: set[int] = set()
        self.ready: list[int] = []
        self.incoming: list[tuple[float, int]] = []
        self.formed = 0.0
        self.held: dict[int, int] = {}
        self.cancelled: list[int] = []
        self.leap = self.static_output = 0
        self.decodes = self.preempted = False

    def computes(self, request: int) -> bool:
        """Return whether a request reads its prompt or decodes, rather than waits for its cache."""
        return self.batch.holds(request) or request in self.prefilling

    def free_blocks(self, request: int, context: int) -> None:
        """Free the blocks of a request that has ``context`` tokens in the cache."""
        del self.computed[request]
        if self.reserves:
            self.free += self.reserved.pop(request)
            return
        blocks = -(-context // self.block_tokens)
        if self.cache is not None:
            shared = self.shared.pop(request)
            blocks += self.cache.release(shared) - len(shared) * self.hash_blocks
        self.free += blocks

    def register(self, request: int, before: int, after: int) -> None:
        """Make findable the hash blocks that filled between two counts of cached tokens."""
        hashes = self.requests.block_hashes
        if self.cache is None or hashes is None:
            return
        mine, shared = hashes[request], self.shared[request]
        for at in range(before // self.hash_tokens, after // self.hash_tokens):
            if at < len(mine) and self.cache.register(mine[at]):
                shared.append(mine[at])

    def evict(self, request: int) -> None:
        """Take a running request out and free its blocks; its tokens so far are kept."""
        del self.order[request]
        if self.batch.holds(request):
            self.requests.generated[request] = self._tokens_so_far(request)
            self.free_blocks(request, self.batch.leave(request))
            return
        context = self.computed[request]
        if request in self.prefilling:
            self.prefilling.remove(request)
            context += sum(new for taken, new in self.taken if taken == request)
            self.taken = [entry for entry in self.taken if entry[0] != request]
        self.free_blocks(request, context)

    def preempt(self, request: int) -> None:
        """Send a running request back to the queue; its cache is computed again later."""
        self.evict(request)
        self.requests.preemptions[request] += 1
        self.requests.status[request] = WAITING
        self.waiting.push(request, front=True)
        self.preempted = True

    def admit(self, request: int, cached: int, now: float) -> None:
        """Move the head of the queue among the running requests."""
        self.waiting.pop()
        self.order[request] = None
        self.computed[request] = cached
        requests = self.requests
        if not requests.scheduled[request] >= 0.0:
            requests.scheduled[request] = now
            requests.cached[request] = cached
        requests.status[request] = RUNNING

    def _tokens_so_far(self, request: int) -> int:
        return self.batch.cached(request) - self.requests.prompt[request] + 1

    @property
    def outstanding(self) -> int:
        """Requests that wait or run here."""
        return self.waiting.size + len(self.incoming) + len(self.order)
