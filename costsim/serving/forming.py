"""How each scheduling policy forms a step: who decodes, and which prompt tokens are read.

Each function fills ``replica.taken`` with (request, new prompt tokens), allocates the blocks of
the step, preempts where they run out, and returns whether the decode batch takes part.
"""

from __future__ import annotations

from collections.abc import Callable

from costsim.serving.replica_state import ReplicaState


def form_chunked(replica: ReplicaState, now: float) -> bool:
    """One token budget: decodes first, then prompts under way, then new ones (vLLM V1)."""
    budget = replica.budget - _grow_decodes(replica)
    if replica.prefilling:
        budget = _continue_prompts(replica, budget)
    if not replica.preempted and replica.waiting.size:
        _admit_chunked(replica, budget, now)
    return True


def form_prefill_first(replica: ReplicaState, now: float) -> bool:
    """Whole prompts go before decodes, which stand still meanwhile (vLLM V0, TGI)."""
    _admit_whole(replica, replica.budget, now, growth=0)
    if replica.taken:
        return False
    _grow_decodes(replica)
    return True


def form_orca(replica: ReplicaState, now: float) -> bool:
    """Whole prompts join the decode batch; the cache is reserved up to the longest answer."""
    _admit_reserving(replica, now)
    return True


def form_static(replica: ReplicaState, now: float) -> bool:
    """A batch is formed when the last one has finished; all of it runs to the longest answer."""
    if replica.order:
        return True
    requests, waiting, size = replica.requests, replica.waiting, replica.block_tokens
    longest = prompts = 0
    while len(replica.order) < replica.max_seqs:
        request = waiting.head()
        if request < 0:
            break
        output, prompt = max(longest, requests.output[request]), requests.prompt[request]
        padded = prompts + prompt + (len(replica.order) + 1) * (output + size)
        if replica.order and padded > replica.blocks * size:
            break
        longest, prompts = output, prompts + prompt
        replica.admit(request, 0, now)
        _take(replica, request, prompt)
    replica.static_output = longest
    for request in replica.order:
        need = min(replica.free, -(-(requests.prompt[request] + longest) // size))
        replica.reserved[request] = need
        replica.free -= need
    return True


def _grow_decodes(replica: ReplicaState) -> int:
    """Allocate the blocks of one decode step, preempting where needed; return the batch size."""
    batch = replica.batch
    if not batch.size:
        return 0
    need = batch.need(1)
    while need > replica.free:
        replica.preempt(_victim(replica))
        need = batch.need(1)
    replica.free -= need
    return batch.size


def _victim(replica: ReplicaState) -> int:
    """Return the running request to preempt: the last admitted, or the least important."""
    settled = (i for i in reversed(replica.order) if replica.computes(i))
    if not replica.prioritised:
        return next(settled)
    requests = replica.requests
    return max(settled, key=lambda i: (requests.priority[i], requests.arrival[i], i))


def _continue_prompts(replica: ReplicaState, budget: int) -> int:
    """Take the next chunks of prompts under way; return the budget that is left."""
    requests, size = replica.requests, replica.block_tokens
    for request in tuple(replica.prefilling):
        if request not in replica.computed:
            continue
        done = replica.computed[request]
        left = requests.prompt[request] + requests.generated[request] - done
        new = min(left, budget, replica.scheduler.long_prompt_tokens or left)
        if new <= 0:
            continue
        need = -(-(done + new) // size) - -(-done // size)
        while need > replica.free and request in replica.computed:
            victim = _victim(replica)
            if replica.batch.holds(victim):
                replica.free += replica.batch.needs_block(victim)
            replica.preempt(victim)
        if request in replica.computed:
            replica.free -= need
            budget -= new
            replica.taken.append((request, new))
            replica.register(request, done, done + new)
    return budget


def _take(replica: ReplicaState, request: int, new: int) -> None:
    replica.prefilling.append(request)
    replica.taken.append((request, new))


def _admit_chunked(replica: ReplicaState, budget: int, now: float) -> None:
    waiting, order, requests = replica.waiting, replica.order, replica.requests
    most = replica.scheduler.long_prompt_tokens
    full = replica.scheduler.reserve_full_prompt
    size = replica.block_tokens
    while budget > 0 and len(order) < replica.max_seqs:
        request = waiting.head()
        if request < 0:
            return
        if request in replica.remote:
            if not _admit_remote(replica, request, now):
                return
            continue
        target = requests.prompt[request] + requests.generated[request]
        hit, cached, shared, extra = 0, 0, None, 0
        if replica.cache is not None:
            hit, shared, extra = _prefix_hit(replica, request, target)
            cached = hit * replica.hash_tokens
        new = min(target - cached, budget, most or budget)
        need = extra - hit * replica.hash_blocks
        wanted = need - (-(target if full else cached + new) // size)
        if wanted + (replica.floor if order else 0) > replica.free:
            return
        replica.free -= need - (-(cached + new) // size)
        replica.admit(request, cached, now)
        if shared is not None:
            _hold(replica, request, shared, cached, new)
        _take(replica, request, new)
        budget -= new


def _prefix_hit(replica: ReplicaState, request: int, target: int) -> tuple[int, list[int], int]:
    """Return hash blocks found, their hashes, and the KV blocks that holding them takes."""
    hashes, cache = replica.requests.block_hashes, replica.cache
    if hashes is None or cache is None:
        return 0, [], 0
    mine = hashes[request]
    hit = cache.hits(mine, (target - 1) // replica.hash_tokens)
    return hit, list(mine[:hit]), cache.idle_among(mine, hit) * replica.hash_blocks


def _hold(replica: ReplicaState, request: int, shared: list[int], cached: int, new: int) -> None:
    assert replica.cache is not None
    replica.cache.acquire(shared, len(shared))
    replica.shared[request] = shared
    replica.register(request, cached, cached + new)


def _admit_remote(replica: ReplicaState, request: int, now: float) -> bool:
    """Give a request whose cache lies elsewhere its blocks, and have the cache fetched."""
    context = replica.requests.prompt[request] + replica.requests.generated[request] - 1
    need = -(-context // replica.block_tokens)
    if need + (replica.floor if replica.order else 0) > replica.free:
        return False
    replica.free -= need
    replica.admit(request, context, now)
    replica.remote.discard(request)
    if replica.cache is not None:
        replica.shared[request] = []
    replica.host.fetch(replica, request, now)
    return True


def _admit_whole(replica: ReplicaState, budget: int, now: float, growth: int) -> None:
    """Admit whole prompts while they fit the budget; the first may be longer than it."""
    waiting, order, requests = replica.waiting, replica.order, replica.requests
    while len(order) < replica.max_seqs:
        request = waiting.head()
        if request < 0:
            return
        if request in replica.remote:
            if not _admit_remote(replica, request, now):
                return
            continue
        target = requests.prompt[request] + requests.generated[request]
        hit, shared, extra = _prefix_hit(replica, request, target)
        cached = hit * replica.hash_tokens
        need = -(-target // replica.block_tokens) - hit * replica.hash_blocks + extra + growth
        crowded = bool(replica.taken) and target - cached > budget
        if crowded or need + (replica.floor if order else 0) > replica.free:
            return
        replica.free -= need
        replica.admit(request, cached, now)
        if replica.cache is not None:
            _hold(replica, request, shared, cached, target - cached)
        _take(replica, request, target - cached)
        budget -= target - cached


def _admit_reserving(replica: ReplicaState, now: float) -> None:
    """Admit whole prompts whose cache up to the answer's next power of two can be reserved."""
    waiting, order, requests = replica.waiting, replica.order, replica.requests
    while len(order) < replica.max_seqs:
        request = waiting.head()
        if request < 0:
            return
        prompt, output = requests.prompt[request], requests.output[request]
        longest = 1 << (output - 1).bit_length()
        need = min(replica.blocks, -(-(prompt + longest) // replica.block_tokens))
        if need > replica.free:
            return
        replica.free -= need
        replica.reserved[request] = need
        replica.admit(request, 0, now)
        _take(replica, request, prompt + requests.generated[request])


FORMS: dict[str, Callable[[ReplicaState, float], bool]] = {
    "vllm": form_chunked,
    "stall_free": form_chunked,
    "prefill_first": form_prefill_first,
    "orca": form_orca,
    "static": form_static,
}
