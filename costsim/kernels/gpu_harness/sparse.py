"""Sparse GEMM on a GPU against the dense one: 2:4 weights and blocks left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from costsim.kernels.gpu_harness.backend import REFUSALS
from costsim.kernels.gpu_harness.captured import device_time
from costsim.kernels.measure.timing import Timing, time_call

BUDGET_S = 0.03
# Weights: n, k of the MLP of an 8B model and of a square projection.
SHAPES = ((4096, 4096), (14336, 4096))


def sparse_rows(
    torch: Any, quick: bool, device: str = "cuda", skipped: list[dict[str, str]] | None = None,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
) -> Iterator[dict[str, Any]]:
    """Yield rows of sparse GEMMs, each with the time of the dense one of its shape.

    Args:
        torch: the module.
        quick: fewer shapes.
        device: ``"cuda"``, or ``"cpu"`` to test.
        skipped: takes what the device or this version of PyTorch refused, with the reason.
        shapes: n and k of the weights.

    Yields:
        ``operator`` (``block_sparse_gemm`` or ``sparse_2_4_gemm``), ``m``, ``n``, ``k``,
        ``block``, ``density`` (share of the weights kept), ``dense_s``, ``speed_up``,
        ``latency_s``, ``spread``.
    """
    left = [] if skipped is None else skipped
    for n, k in shapes[:1] if quick else shapes:
        for m in (16, 256, 4096) if quick else (1, 16, 64, 256, 1024, 4096):
            yield from _of_shape(torch, m, n, k, quick, device, left)


def _of_shape(
    torch: Any, m: int, n: int, k: int, quick: bool, device: str, skipped: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    # SciPy's and MKL's sparse products know no bf16.
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    x = torch.randn(m, k, device=device).to(dtype)
    weights = torch.randn(n, k, device=device).to(dtype)
    linear = torch.nn.functional.linear
    dense = _timed(torch, lambda: linear(x, weights), device)
    size = {"m": m, "n": n, "k": k}
    kinds: list[tuple[str, int, float]] = [("sparse_2_4_gemm", 4, 0.5)]
    kinds += [("block_sparse_gemm", block, density) for block in ((64,) if quick else (32, 64, 128))
              for density in ((0.25,) if quick else (0.1, 0.25, 0.5))]
    for operator, block, density in kinds:
        try:
            timing = _timed(torch, _KINDS[operator](torch, x, weights, block, density), device)
        except REFUSALS as error:
            skipped.append({"what": f"{operator} {size} block {block}",
                            "why": str(error).split("\n")[0][:200]})
            continue
        yield {"operator": operator, **size, "block": block, "density": density,
               "dense_s": dense.quiet_s, "speed_up": dense.quiet_s / timing.quiet_s,
               "latency_s": timing.quiet_s, "spread": timing.spread}


def _timed(torch: Any, call: Callable[[], object], device: str) -> Timing:
    def quietly() -> object:
        with torch.no_grad():
            return call()

    if device == "cuda":
        return device_time(torch, quietly, 1, BUDGET_S)
    return time_call(quietly, BUDGET_S)


def _two_of_four(
    torch: Any, x: Any, weights: Any, block: int, density: float
) -> Callable[[], object]:
    """Return the product with the two smaller of each four weights left out."""
    groups = weights.view(weights.shape[0], -1, block)
    # argsort of an argsort gives ranks: two of four survive in every group.
    kept = groups.abs().argsort(dim=-1).argsort(dim=-1) >= block // 2
    pruned = (groups * kept).view_as(weights)
    sparse = torch.sparse.to_sparse_semi_structured(pruned)
    return lambda: torch.nn.functional.linear(x, sparse)


def _blocks(torch: Any, x: Any, weights: Any, block: int, density: float) -> Callable[[], object]:
    """Return the product with weights of which only a share of the square blocks is kept."""
    n, k = weights.shape
    kept = torch.rand(n // block, k // block, device=weights.device) < density
    kept[:, 0] = True  # no empty row of blocks
    mask = kept.repeat_interleave(block, 0).repeat_interleave(block, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse BSR tensor support is in beta")
        sparse = (weights * mask).to_sparse_bsr((block, block))
    columns = x.t().contiguous()
    return lambda: sparse @ columns


_KINDS: dict[str, Callable[..., Callable[[], object]]] = {
    "sparse_2_4_gemm": _two_of_four, "block_sparse_gemm": _blocks,
}
