"""One replica that advances from one state change to the next.

Between two changes the decode batch is fixed. Its contexts grow by one token a step, so the total
context, the KV blocks that fill up and the step times are all known in closed form, and any number
of steps costs the same small amount of work. With a `StepBatch` the same replica takes every step
by itself and visits every request: the oracle that the tests hold the leaps against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from costsim.serving.batch import DecodeBatch, LeapBatch, StepBatch
from costsim.serving.forming import FORMS
from costsim.serving.intervals import IntervalCounter
from costsim.serving.prefix_cache import PrefixCache
from costsim.serving.queue import FifoQueue, PriorityQueue
from costsim.serving.requests import FINISHED, RUNNING, WAITING, RequestTable
from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import Chunk, DecodeLine, StepCost, UnequalLine

if TYPE_CHECKING:
    from costsim.serving.fleet import Pool, ReplicaSpec

NEVER = float("inf")


class Host(Protocol):
    """What a replica tells the fleet it belongs to."""

    def finish(self, replica: Replica, request: int, now: float) -> None:
        """A request has all its tokens."""

    def hand_over(self, replica: Replica, request: int, now: float) -> None:
        """A prefill replica has the first token; the cache waits to be fetched."""

    def fetch(self, replica: Replica, request: int, now: float) -> None:
        """A decode replica has room for a request's cache and asks for it."""


class Replica:
    """One replica: queue, KV blocks, decode batch and the leap it is in.

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
        self.form = FORMS[scheduler.policy]
        self.intervals = IntervalCounter()
        self.busy_s = self.block_s = self.batch_s = 0.0
        self.prompt_tokens = self.output_tokens = self.steps = 0
        self.up_since, self.up_before = 0.0, 0.0
        self.broken = self.retired = False
        self.reset()

    spec: ReplicaSpec
    pool: Pool

    def together(self) -> list[Replica]:
        """Return the replicas that stand and fall with this one."""
        return [self]

    def up_time(self, now: float) -> float:
        """Return the time this replica has stood ready up to ``now`` (s)."""
        return self.up_before + (now - self.up_since if self.up else 0.0)

    def reset(self) -> None:
        """Empty the replica; what it has counted so far stays."""
        self.end, self.posted = NEVER, NEVER
        self.start = self.stall_s = 0.0
        self.free = self.blocks
        self.waiting = PriorityQueue(self.requests) if self.prioritised else FifoQueue()
        kind = LeapBatch if self.leaps else StepBatch
        self.batch: DecodeBatch = kind(self.block_tokens, not self.reserves)
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

    # --- what the fleet calls ---------------------------------------------------------------

    def submit(self, request: int, now: float, remote: bool = False) -> None:
        """Queue a request; ``remote`` where a prefill replica holds its cache."""
        if remote:
            self.remote.add(request)
        self.requests.status[request] = WAITING
        if self.ahead and self.end != NEVER:
            self.incoming.append((now, request))
            if self.leap > 1 and len(self.order) < self.max_seqs:
                self.interrupt(now, 1)
            return
        waiting = self.waiting
        blocked = waiting.size > 0
        waiting.push(request)
        if self.end == NEVER:
            self.begin(now)
        elif (
            self.leap > 1
            and len(self.order) < self.max_seqs
            and (not blocked or (self.prioritised and waiting.head() == request))
        ):
            self.interrupt(now)

    def deliver(self, request: int, now: float) -> None:
        """The cache of a request has arrived; it decodes from the next step on."""
        if request in self.order:
            self.ready.append(request)
            self._nudge(now)

    def release_held(self, request: int, now: float) -> None:
        """The cache of a handed-over request has been fetched; its blocks are free."""
        if request in self.held:
            self.free_blocks(request, self.held.pop(request))
            self._nudge(now)

    def cancel(self, request: int, now: float) -> None:
        """Take a request out: at once where it waits, at the end of the step where it runs."""
        if request in self.order:
            self.cancelled.append(request)
            if self.end == NEVER or not self.computes(request):
                self._complete_cancels()
        elif request in self.held:
            self.free_blocks(request, self.held.pop(request))
        else:
            self._drop_waiting(request)
        self._nudge(now)

    def computes(self, request: int) -> bool:
        """Return whether a request reads its prompt or decodes, rather than waits for its cache."""
        return self.batch.holds(request) or request in self.prefilling

    def _drop_waiting(self, request: int) -> None:
        self.remote.discard(request)
        kept = [entry for entry in self.incoming if entry[1] != request]
        if len(kept) < len(self.incoming):
            self.incoming = kept
        else:
            self.waiting.drop(request)

    def fail(self) -> list[int]:
        """Lose the machine and its cache; return the requests that were on it."""
        gone = set(self.cancelled)
        lost = [i for i in (*self.order, *self.waiting.members(), *self.held) if i not in gone]
        lost += [request for _, request in self.incoming]
        if self.cache is not None:
            self.cache.clear()
        self.reset()
        return lost

    def wake(self, now: float) -> None:
        """Finish the leap that ends now and begin the next one."""
        self.complete(now)
        self.begin(now)

    # --- one leap ---------------------------------------------------------------------------

    def prepare(self, now: float) -> None:
        """Form the next step: who decodes, and which prompt tokens are read."""
        if self.ready:
            self._join_ready()
        if self.incoming:
            self._let_in()
        self.preempted = False
        self.decodes = self.form(self, now)

    def begin(self, now: float) -> None:
        """Form the next step, and leap over as many like it as nothing can interrupt."""
        self.prepare(now)
        batch, taken = self.batch, self.taken
        if self.incoming and not taken and not (self.decodes and batch.size):
            # Nothing runs: the engine need not wait for a step to end.
            self.formed = now
            self.prepare(now)
            taken = self.taken
        size = batch.size if self.decodes else 0
        self.start = now
        if taken:
            computed = self.computed
            chunks = [(new, computed[request]) for request, new in taken]
            self.leap = 1
            self.end = now + self._mixed(size, chunks)
        elif size:
            self.leap = self.longest_leap() if self.leaps and not self.preempted else 1
            if self.incoming:
                self.leap = 1
            self.end = now + self._line(size).total(batch.context, size, self.leap)
        else:
            self.leap, self.end = 0, NEVER
        if self.cache is not None:
            self.cache.shrink(self.free)

    def _let_in(self) -> None:
        """Queue the requests that had arrived when the step before this one started."""
        kept = []
        for entry in self.incoming:
            if entry[0] <= self.formed:
                self.waiting.push(entry[1])
            else:
                kept.append(entry)
        self.incoming = kept

    def _last_start(self, now: float) -> float:
        """Return when the last step of the leap that ends now began."""
        if self.leap <= 1:
            return self.start
        batch = self.batch
        line = self._line(batch.size)
        return self.start + line.total(batch.context, batch.size, self.leap - 1)

    def _mixed(self, size: int, chunks: list[Chunk]) -> float:
        if not size:
            return self.cost.mixed(0, 0, chunks)
        context, cost = self.batch.context, self.cost
        even = cost.mixed(size, context, chunks)
        if self.unequal is None:
            return even
        share = self.unequal(size, sum(new for new, _ in chunks))
        return even + share * (cost.mixed(size, size * self.batch.longest(), chunks) - even)

    def _line(self, size: int) -> DecodeLine:
        line = self.cost.decode(size)
        if self.unequal is None:
            return line
        further = size * self.batch.longest() - self.batch.context
        return UnequalLine(line, self.unequal(size, 0), further)

    def longest_leap(self) -> int:
        """Return the steps until a request finishes or the blocks run out."""
        batch = self.batch
        most = batch.next_finish()
        if most <= 1 or self.reserves:
            return most
        free = self.free + batch.need(1)
        if batch.size * (most // self.block_tokens + 1) <= free or batch.need(most) <= free:
            return most
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            if batch.need(middle) <= free:
                low = middle
            else:
                high = middle
        return low

    def interrupt(self, now: float, more: int = 0) -> None:
        """Cut the leap short at the end of the step under way, or ``more`` steps later."""
        batch = self.batch
        line = self._line(batch.size)
        steps, seconds = line.steps_until(
            batch.context, batch.size, self.leap, now - self.start
        )
        if more and steps < self.leap:
            steps += more
            seconds = line.total(batch.context, batch.size, steps)
        self.leap, self.end = steps, self.start + seconds

    def _nudge(self, now: float) -> None:
        if self.end == NEVER:
            self.begin(now)
        elif self.leap > 1:
            self.interrupt(now)

    def complete(self, now: float) -> None:
        """Account for the leap that ends now: tokens, blocks, who is done."""
        if self.incoming:
            self.formed = self._last_start(now)
        seconds, leap, batch = now - self.start, self.leap, self.batch
        self.leap = 0
        self.busy_s += seconds
        self.steps += leap
        used = self.blocks - self.free
        size = batch.size
        if self.decodes and size:
            if leap > 1:
                grown = batch.need(leap) - batch.need(1)
                self.free -= grown
                used += grown / 2
                if self.cache is not None:
                    self.cache.shrink(self.free)
            self.batch_s += seconds * size
            self.output_tokens += leap * size
            if self.stall_s:
                self.intervals.add(self.stall_s + seconds / leap, size)
                self.intervals.add(seconds / leap, size * (leap - 1))
                self.stall_s = 0.0
            else:
                self.intervals.add(seconds / leap, size * leap)
            for request in batch.advance(leap):
                self._finish(request, now)
        elif size:
            self.stall_s += seconds
        self.block_s += seconds * used
        if self.taken:
            self._complete_prompts(now)
        if self.cancelled:
            self._complete_cancels()

    def _complete_prompts(self, now: float) -> None:
        requests, computed = self.requests, self.computed
        for request, new in self.taken:
            self.prompt_tokens += new
            computed[request] += new
            generated = requests.generated[request]
            target = requests.prompt[request] + generated
            if computed[request] < target:
                continue
            self.prefilling.remove(request)
            self.output_tokens += 1
            if not generated:
                requests.first_token[request] = now
            generated += 1
            requests.generated[request] = generated
            self._after_prompt(request, target, generated, now)
        self.taken = []

    def _after_prompt(self, request: int, context: int, generated: int, now: float) -> None:
        output = self.static_output or self.requests.output[request]
        if generated >= output:
            self._finish(request, now)
        elif self.role == "prefill" and request not in self.cancelled:
            del self.order[request]
            self.held[request] = context
            self.host.hand_over(self, request, now)
        else:
            self.batch.join(request, context, output - generated)

    def _complete_cancels(self) -> None:
        for request in self.cancelled:
            if request in self.order:
                if request in self.ready:
                    self.ready.remove(request)
                self.evict(request)
        self.cancelled = []

    def _join_ready(self) -> None:
        requests = self.requests
        for request in self.ready:
            context = self.computed[request]
            left = requests.output[request] - requests.generated[request]
            self.batch.join(request, context, left)
        self.ready = []

    def _finish(self, request: int, now: float) -> None:
        requests = self.requests
        output = requests.output[request]
        context = requests.prompt[request] + output - 1
        del self.order[request]
        if self.cache is not None:
            self.register(request, self.computed[request], context)
        self.free_blocks(request, context)
        if request in self.cancelled:
            return
        requests.generated[request] = output
        requests.finished[request] = now
        requests.status[request] = FINISHED
        self.host.finish(self, request, now)

    # --- blocks -------------------------------------------------------------------------------

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
