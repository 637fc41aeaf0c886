"""Measurements that no operator of the engine uses yet: block sparsity, dispatch, all-reduce.

Block-sparse GEMM against the dense one of the same shape, rows gathered to and scattered from
experts, and an all-reduce between processes over shared memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine
from costsim.kernels.measure.numpy_kernels import routed
from costsim.kernels.measure.threads import clock_for, limited
from costsim.kernels.measure.timing import Timing, time_call

BUDGET_S = 0.08
Clock = Callable[[], float]


Part = tuple[str, Callable[[], list[dict[str, Any]]]]


def extra_parts(
    backend: Any, machine: Machine, quick: bool, skipped: list[dict[str, str]] | None = None
) -> list[Part]:
    """Return the parts of the extra measurements: a name, and what returns its rows when called.

    Args:
        backend: of `costsim.kernels.measure.run.make_backend`; SciPy's sparse kernels run on the
            CPU, a GPU has parts of its own.
        machine: for the number of processes.
        quick: fewer shapes.
        skipped: takes what the device refused, with the reason.
    """
    if backend.device == "cuda":
        from dataclasses import replace

        from costsim.kernels.gpu_harness.extras import parts, plan

        return parts(backend, replace(plan(quick), skipped=[] if skipped is None else skipped))
    threads = machine.threads or machine.cores

    def alone(rows: Callable[[bool, Clock], Iterator[dict[str, Any]]]) -> list[dict[str, Any]]:
        with limited(threads):
            return list(rows(quick, clock_for(threads)))

    return [("block-sparse GEMM", lambda: alone(_block_sparse)),
            ("expert dispatch", lambda: alone(_dispatch)),
            ("all-reduce of processes", lambda: list(_all_reduce(machine, quick)))]


def measure_extras(
    parts: list[Part], journal: Journal, progress: Callable[[int, int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Return rows of plain data: operator, shape, latency, spread, and what it compares with.

    Args:
        parts: from `extra_parts`.
        journal: of finished parts; these are not measured again.
        progress: called before each part.
    """
    rows: list[dict[str, Any]] = []
    for number, (name, part) in enumerate(parts):
        if progress:
            progress(number, len(parts), name)
        key = f"extra {name}"
        if key not in journal.done:
            journal.add(key, rows=part())
        rows += journal.done[key]["rows"]
    return rows


def _timed(call: Callable[[], object], clock: Clock) -> Timing:
    return time_call(call, BUDGET_S, clock=clock)


def _row(operator: str, timing: Any, **more: Any) -> dict[str, Any]:
    return {"operator": operator, **more, "latency_s": timing.quiet_s, "spread": timing.spread}


def _block_sparse(quick: bool, clock: Clock) -> Iterator[dict[str, Any]]:
    size = 1024 if quick else 2048
    for m in ((16, 256) if quick else (1, 16, 64, 256, 1024)):
        x = np.ones((size, m), np.float32)
        dense_weights = np.ones((size, size), np.float32)
        dense = _timed(lambda w=dense_weights, x=x: w @ x, clock)  # type: ignore[misc]
        for block in (8, 16, 32, 64):
            for density in ((0.25,) if quick else (0.05, 0.1, 0.25, 0.5)):
                matrix = block_sparse(size, block, density)
                timing = _timed(lambda a=matrix, x=x: a @ x, clock)  # type: ignore[misc]
                yield _row("block_sparse_gemm", timing, m=m, n=size, k=size, block=block,
                           density=density, dense_s=dense.quiet_s,
                           speed_up=dense.quiet_s / timing.quiet_s)


def block_sparse(size: int, block: int, density: float, seed: int = 0) -> Any:
    """Return a square BSR matrix with a share of its blocks kept at random."""
    from scipy.sparse import bsr_matrix

    random, count = np.random.default_rng(seed), size // block
    kept = np.flatnonzero(random.random(count * count) < density)
    pointer = np.searchsorted(kept // count, np.arange(count + 1))
    data = random.standard_normal((len(kept), block, block)).astype(np.float32)
    return bsr_matrix((data, kept % count, pointer), shape=(size, size))


def _dispatch(quick: bool, clock: Clock) -> Iterator[dict[str, Any]]:
    random, hidden = np.random.default_rng(0), 1024
    for tokens in ((16, 256) if quick else (1, 16, 64, 256, 1024)):
        for experts, top_k in ((8, 2), (64, 8)):
            chosen = routed(random, tokens, experts, top_k).ravel()
            x = random.standard_normal((tokens, hidden)).astype(np.float32)
            timing = _timed(lambda c=chosen, x=x: gather_scatter(c, x), clock)  # type: ignore[misc]
            moved = 4.0 * tokens * top_k * hidden * 4.0
            yield _row("expert_dispatch", timing, tokens=tokens, hidden=hidden, experts=experts,
                       top_k=top_k, bytes_per_s=moved / timing.quiet_s)


def gather_scatter(chosen: Any, x: Any) -> Any:
    """Return tokens sorted by expert and summed back: the two moves around grouped GEMMs."""
    order = np.argsort(chosen, kind="stable")
    top_k = len(chosen) // len(x)
    gathered = x[order // top_k]
    back = np.empty_like(gathered)
    back[order] = gathered
    return back.reshape(len(x), top_k, -1).sum(axis=1)


def _all_reduce(machine: Machine, quick: bool) -> Iterator[dict[str, Any]]:
    ranks = max(2, min(machine.cores, 8))
    sizes = (1 << 14, 1 << 20) if quick else tuple(1 << i for i in range(12, 25, 2))
    for size, (median, spread) in zip(sizes, all_reduce_times(ranks, sizes), strict=True):
        yield {"operator": "all_reduce", "ranks": ranks, "message_bytes": size,
               "latency_s": median, "spread": spread, "processes": True}


def all_reduce_times(
    ranks: int, sizes: tuple[int, ...], repeats: int = 15
) -> list[tuple[float, float]]:
    """Return median and spread of an all-reduce between processes, by message size [B].

    Each rank adds up its share of all messages (reduce-scatter) and copies the others' sums
    (all-gather), with a barrier after either; the slowest rank counts.
    """
    from multiprocessing import get_context
    from multiprocessing.shared_memory import SharedMemory

    context = get_context("spawn")
    memory = SharedMemory(create=True, size=(ranks + 1) * max(sizes))
    barrier, results = context.Barrier(ranks), context.Queue()
    try:
        workers = [context.Process(target=_worker, args=(
            rank, ranks, sizes, repeats, memory.name, barrier, results)) for rank in range(ranks)]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join(timeout=30)
    finally:
        memory.close()
        memory.unlink()
    slowest = np.max(found, axis=0)
    medians = np.median(slowest, axis=1)
    spreads = 1.4826 * np.median(np.abs(slowest - medians[:, None]), axis=1) / medians
    return [(float(m), float(s)) for m, s in zip(medians, spreads, strict=True)]


def _worker(
    rank: int, ranks: int, sizes: tuple[int, ...], repeats: int, name: str, barrier: Any,
    results: Any,
) -> None:
    """Time one rank's part; runs in its own process."""
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(name=name)
    everything = np.ndarray((ranks + 1, max(sizes) // 4), np.float32, buffer=memory.buf)
    if rank == 0:
        everything[:] = 1.0
    times = [[_one_all_reduce(everything, rank, ranks, size // 4, barrier)
              for _ in range(repeats + 2)][2:] for size in sizes]
    results.put(times)
    del everything
    memory.close()


def _one_all_reduce(everything: Any, rank: int, ranks: int, count: int, barrier: Any) -> float:
    own = slice(rank * count // ranks, (rank + 1) * count // ranks)
    barrier.wait()
    start = time.perf_counter()
    everything[:ranks, own].sum(axis=0, out=everything[ranks, own])
    barrier.wait()
    np.copyto(everything[rank, :count], everything[ranks, :count])
    barrier.wait()
    return time.perf_counter() - start
