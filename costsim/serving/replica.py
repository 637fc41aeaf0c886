"""One replica that advances from one state change to the next.

Between two changes the decode batch is fixed. Its contexts grow by one token a step, so the total
context, the KV blocks that fill up and the step times are all known in closed form, and any number
of steps costs the same small amount of work. With a `StepBatch` the same replica takes every step
by itself and visits every request: the oracle that the tests hold the leaps against.
"""

from __future__ import annotations

from typing import Any

from costsim.serving.forming import FORMS
from costsim.serving.replica_state import NEVER, Host, ReplicaState
from costsim.serving.requests import FINISHED, WAITING
from costsim.serving.step_cost import Chunk, DecodeLine, UnequalLine

__all__ = ["NEVER", "Host", "Replica"]


class Replica(ReplicaState):
    """One replica: what it holds, and the leap it is in; see `ReplicaState` for the arguments."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.form = FORMS[self.scheduler.policy]

    def together(self) -> list[Replica]:
        """Return the replicas that stand and fall with this one."""
        return [self]

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

    def _drop_waiting(self, request: int) -> None:
        self.remote.discard(request)
        kept = [entry for entry in self.incoming if entry[1] != request]
        if len(kept) < len(self.incoming):
            self.incoming = kept
        else:
            self.waiting.drop(request)

    def cut_off(self, now: float) -> None:
        """Count the steps under way up to now: they will not end."""
        if self.end != NEVER:
            self._count_time(now - self.start)
            self.start = now

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
            if self.image_s:
                self.end += self.encoding_s()
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
        self.steps += leap
        size = batch.size
        self._count_time(seconds)
        if self.decodes and size:
            if leap > 1:
                grown = batch.need(leap) - batch.need(1)
                self.free -= grown
                self.block_s += seconds * grown / 2
                if self.cache is not None:
                    self.cache.shrink(self.free)
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
        if self.taken:
            self._complete_prompts(now)
        if self.cancelled:
            self._complete_cancels()

    def _count_time(self, seconds: float) -> None:
        """Count time in the steps under way, with what is decoded and held in them."""
        self.busy_s += seconds
        self.block_s += seconds * (self.blocks - self.free)
        if self.decodes:
            self.batch_s += seconds * self.batch.size

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
