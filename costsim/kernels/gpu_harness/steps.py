"""Times of whole decode steps: launched kernel by kernel, and as one captured graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costsim.kernels.gpu_harness.backend import REFUSALS, GpuBackend
from costsim.kernels.gpu_harness.captured import capture
from costsim.kernels.gpu_harness.decoder import DENSE, MIXTURE, Decoder, Step
from costsim.kernels.measure.timing import time_call

MODELS = (DENSE, MIXTURE)
# Requests and tokens that each attends to.
POINTS = ((1, 1024), (16, 1024), (64, 1024), (256, 1024), (1, 8192), (16, 8192))
QUICK_POINTS = ((1, 1024), (64, 1024))
# Part of the free memory that a step may fill with weights and caches.
MEMORY_SHARE = 0.85


def step_rows(
    backend: GpuBackend, budget_s: float, models: Sequence[Decoder] = MODELS,
    points: Sequence[tuple[int, int]] = POINTS, skipped: list[dict[str, str]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield times of decode steps, ``how``: ``eager`` and, on a GPU, ``graph``.

    Args:
        backend: the device.
        budget_s: sampling time of each row.
        models: shapes to build, one after the other.
        points: batch and context of each step.
        skipped: takes what does not fit or is refused, with the reason.

    Yields:
        ``operator`` (``decode_step``), ``model``, ``batch``, ``context``, ``how``,
        ``weight_bytes``, ``kv_bytes``, ``latency_s``, ``spread``.
    """
    left = [] if skipped is None else skipped
    for model in models:
        for batch, context in points:
            what = f"decode_step {model.name} batch {batch} context {context}"
            if not _fits(backend, model, batch, context):
                left.append({"what": what, "why": "weights and caches exceed the free memory"})
                continue
            try:
                yield from _one(backend, model, batch, context, budget_s)
            except REFUSALS as error:
                left.append({"what": what, "why": str(error).split("\n")[0][:200]})
            finally:
                _freed(backend)


def _one(
    backend: GpuBackend, model: Decoder, batch: int, context: int, budget_s: float
) -> Iterator[dict[str, Any]]:
    step = Step(backend.torch, model, batch, context, backend.device)
    row = {"operator": "decode_step", "model": model.name, "batch": batch, "context": context,
           "weight_bytes": 2.0 * model.parameters,
           "kv_bytes": 2.0 * model.cache_elements(batch, context)}
    timing = time_call(step.run, budget_s, backend.synchronise)
    yield {**row, "how": "eager", "latency_s": timing.quiet_s, "spread": timing.spread}
    if backend.device != "cuda":
        return
    graph = capture(backend.torch, step.run, 1)
    timing = time_call(graph.replay, budget_s, backend.synchronise)
    graph.reset()
    yield {**row, "how": "graph", "latency_s": timing.quiet_s, "spread": timing.spread}


def _fits(backend: GpuBackend, model: Decoder, batch: int, context: int) -> bool:
    if backend.device != "cuda":
        return True
    wanted = 2.0 * (model.parameters + model.cache_elements(batch, context))
    return bool(wanted < MEMORY_SHARE * backend.torch.cuda.mem_get_info()[0])


def _freed(backend: GpuBackend) -> None:
    """Give the memory of the last step back before the next one is built."""
    backend.pools.clear()
    if backend.device == "cuda":
        backend.torch.cuda.empty_cache()
