"""What a GPU is measured on besides single kernels: launches, norms, dispatch, sparsity, steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.kernels.gpu_harness.backend import REFUSALS, GpuBackend, attention_backends
from costsim.kernels.gpu_harness.launch import launch_rows
from costsim.kernels.gpu_harness.sparse import SHAPES, sparse_rows
from costsim.kernels.gpu_harness.steps import MODELS, POINTS, QUICK_POINTS, step_rows
from costsim.kernels.measure.numpy_kernels import routed
from costsim.kernels.measure.timing import Timing

BUDGET_S, STEP_BUDGET_S = 0.05, 0.4
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Shapes of the extra measurements.

    Args:
        launches: kernels launched in a row.
        norm_bytes: read and written by a norm.
        attention: shapes that every backend of attention is timed on, by operator.
        dispatch: tokens, hidden size, experts and top-k of gathers to experts and back.
        sparse: n and k of sparse weights; quick: fewer of their shapes.
        models, points: decode steps, and batch and context of each.
    """

    launches: int = 1000
    norm_bytes: Sequence[int] = tuple(4**i for i in range(7, 15))
    attention: Sequence[tuple[str, dict[str, Any]]] = ()
    dispatch: Sequence[tuple[int, int, int, int]] = ()
    sparse: tuple[tuple[int, int], ...] = SHAPES
    quick: bool = False
    models: Sequence[Any] = MODELS
    points: Sequence[tuple[int, int]] = POINTS
    skipped: list[dict[str, str]] = field(default_factory=list)


Kernels = list[tuple[str, dict[str, Any]]]


def _attention(heads: int, kv_heads: int, dim: int, quick: bool) -> Kernels:
    shared = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "v_head_dim": dim,
              "dtype": "bf16", "kv_dtype": "bf16"}
    lengths = (2048,) if quick else (256, 2048, 8192)
    found: Kernels = [
        ("attention_prefill", {**shared, "batch": 1, "new_tokens": n, "context": 0})
        for n in lengths]
    return found + [("attention_decode", {**shared, "batch": b, "context": 4096})
                    for b in ((64,) if quick else (1, 16, 64))]


def plan(quick: bool) -> Plan:
    """Return the shapes of a quick or a full run."""
    tokens = (16, 1024) if quick else (1, 16, 64, 256, 1024, 4096)
    return Plan(
        attention=_attention(32, 8, 128, quick),
        dispatch=[(t, 2048, 128, 8) for t in tokens], quick=quick,
        points=QUICK_POINTS if quick else POINTS)


def parts(backend: GpuBackend, chosen: Plan) -> list[tuple[str, Callable[[], Rows]]]:
    """Return the parts of a run by name; each returns its rows when called."""
    return [
        ("launches", lambda: list(launch_rows(backend, chosen.launches, 4 * BUDGET_S))),
        ("norms", lambda: list(_norms(backend, chosen))),
        ("attention by backend", lambda: list(_by_backend(backend, chosen))),
        ("expert dispatch", lambda: list(_dispatch(backend, chosen))),
        ("sparse GEMM", lambda: list(sparse_rows(
            backend.torch, chosen.quick, backend.device, chosen.skipped, chosen.sparse))),
        *((f"decode steps of {model.name}", lambda m=model: list(step_rows(
            backend, STEP_BUDGET_S, [m], chosen.points, chosen.skipped)))
          for model in chosen.models)]


def _norms(backend: GpuBackend, chosen: Plan) -> Iterator[dict[str, Any]]:
    for size in chosen.norm_bytes:
        call, _ = backend.prepare("elementwise", {"bytes": size, "how": "rms_norm"})
        yield _row("rms_norm", backend.timed(call, BUDGET_S), bytes=size)


def _by_backend(backend: GpuBackend, chosen: Plan) -> Iterator[dict[str, Any]]:
    from torch.nn.attention import sdpa_kernel

    for operator, shape in chosen.attention:
        for name, kind in attention_backends(backend).items():
            call, _ = backend.prepare(operator, shape)

            def run(call: Any = call, kind: Any = kind) -> object:
                with sdpa_kernel([kind]):
                    return call()

            try:
                timing = backend.timed(run, BUDGET_S)
            except REFUSALS as error:
                chosen.skipped.append({"what": f"{operator} by {name}",
                                       "why": str(error).split("\n")[0][:200]})
                continue
            yield _row(operator, timing, how=name, **shape)


def _dispatch(backend: GpuBackend, chosen: Plan) -> Iterator[dict[str, Any]]:
    """Yield times of tokens gathered by expert and summed back, the moves around the products."""
    torch = backend.torch
    for tokens, hidden, experts, top_k in chosen.dispatch:
        order = np.argsort(routed(backend.random, tokens, experts, top_k).ravel(), kind="stable")
        rows = torch.tensor(order // top_k, device=backend.device)
        x = backend.fresh(tokens, hidden, dtype=backend.type("bf16"))

        def run(x: Any = x, rows: Any = rows) -> Any:
            return torch.zeros_like(x).index_add_(0, rows, x[rows])

        timing = backend.timed(backend.quiet(run), BUDGET_S)
        moved = 4.0 * tokens * top_k * hidden * 2.0
        yield _row("expert_dispatch", timing, tokens=tokens, hidden=hidden, experts=experts,
                   top_k=top_k, bytes_per_s=moved / timing.quiet_s)


def _row(operator: str, timing: Timing, **more: Any) -> dict[str, Any]:
    return {"operator": operator, **more, "latency_s": timing.quiet_s, "spread": timing.spread}
