"""Kernels as servers run them: fp8 and bf16 GEMM, SDPA's backends, grouped experts, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from costsim.kernels.gpu_harness.captured import device_time
from costsim.kernels.measure.numpy_kernels import CACHE_MULTIPLE, Call, routed
from costsim.kernels.measure.timing import Timing, time_call
from costsim.kernels.measure.torch_kernels import Prepared, TorchBackend, causal_attention

# What PyTorch raises where a device, a shape or a data type has no kernel, or memory runs out.
REFUSALS = (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError)
# Compute capability from which tensor cores multiply fp8 (Ada, Hopper and later).
FP8_FROM = (8, 9)


class GpuBackend(TorchBackend):
    """PyTorch on a GPU (or, to test the harness, on the CPU), with the kernels of servers.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
    """

    refusals = REFUSALS

    def __init__(self, device: str = "cuda", seed: int = 0) -> None:
        super().__init__(device, 1e6, ("bf16",), seed)
        self.rotation = 1
        if device == "cuda":
            about = self.torch.cuda.get_device_properties(0)
            self.cache_bytes = float(getattr(about, "L2_cache_size", 0) or 50e6)
            if self.torch.cuda.get_device_capability(0) < FP8_FROM:
                return
        self.dtypes = ("bf16", "fp8")

    @property
    def title(self) -> str:
        """Name of the device."""
        return str(self.torch.cuda.get_device_name(0)) if self.device == "cuda" else "CPU"

    def type(self, name: str) -> Any:
        """Return torch's data type; ``fp8`` is e4m3."""
        return self.torch.float8_e4m3fn if name == "fp8" else super().type(name)

    def copies(self, size_bytes: float) -> int:
        """Return how many copies of a weight take turns, and keep it for the graph."""
        self.rotation = super().copies(size_bytes)
        return self.rotation

    def take(self, *shape: int, dtype: Any) -> Any:
        """Return an array from the pool, at another place each time."""
        if dtype is self.torch.float8_e4m3fn:
            self._narrow_pool(int(np.prod(shape)), dtype)
        return super().take(*shape, dtype=dtype)

    def _narrow_pool(self, size: int, dtype: Any) -> None:
        """Fill the pool of a type without arithmetic of its own, by way of its bytes."""
        pool = self.pools.get(dtype)
        if pool is not None and size <= pool.numel():
            return
        few = self.fresh(1 << 16, dtype=dtype).view(self.torch.uint8)
        least = max(size, int(CACHE_MULTIPLE * self.cache_bytes))
        self.pools[dtype] = few.repeat(least // few.numel() + 1).view(dtype)

    def prepare(self, operator: str, shape: Mapping[str, Any]) -> Prepared:
        """Return a kernel ready to be called, and shape columns that only the data decide."""
        self.rotation = 1
        how = str(shape.get("how", "fp8" if shape.get("dtype") == "fp8" else ""))
        make = KERNELS.get((operator, how)) or KERNELS.get((operator, ""))
        if make is None:
            return super().prepare(operator, shape)
        call, more = make(self, shape)
        return self.quiet(call), more

    def quiet(self, call: Call) -> Call:
        """Return the call without the bookkeeping of gradients."""
        def run() -> object:
            with self.torch.inference_mode():
                return call()

        return run

    def timed(self, call: Call, budget_s: float) -> Timing:
        """Return a call's time: in a captured graph on a GPU, as it is on the CPU."""
        if self.device == "cuda":
            return device_time(self.torch, call, self.rotation, budget_s)
        return time_call(call, budget_s)


def _fp8_gemm(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    """Multiply e4m3 by e4m3 with one scale a tensor, bf16 out (cuBLASLt's kernel on NVIDIA)."""
    m, n, k, torch = s["m"], s["n"], s["k"], b.torch
    dtype = b.type("fp8")
    x, one = b.fresh(m, k, dtype=dtype), torch.ones((), device=b.device)
    weights = cycle([b.take(n, k, dtype=dtype).t() for _ in range(b.copies(n * k))])
    return lambda: torch._scaled_mm(x, next(weights), scale_a=one, scale_b=one,
                                    out_dtype=torch.bfloat16, use_fast_accum=True), {}


def attention_backends(b: GpuBackend) -> dict[str, Any]:
    """Return the backends of scaled-dot-product attention worth timing on the device."""
    from torch.nn.attention import SDPBackend

    if b.device == "cpu":
        return {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
    names = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION",
             "efficient": "EFFICIENT_ATTENTION"}
    return {ours: getattr(SDPBackend, theirs) for ours, theirs in names.items()
            if hasattr(SDPBackend, theirs)}


def _prefill(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    def mask(new: int, seen: int) -> Any:
        from torch.nn.attention.bias import causal_lower_right

        return causal_lower_right(new, seen)  # a rule, without a mask in memory

    return causal_attention(b, s, mask)


def _decode(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    """Attend with the heads of a group as rows of one query: the cache is then read once."""
    dtype, seen, kv = b.type(s["kv_dtype"]), s["context"], s["kv_heads"]
    query = b.fresh(s["batch"], kv, s["heads"] // kv, s["head_dim"], dtype=dtype)
    size = s["batch"] * kv * seen * (s["head_dim"] + s["v_head_dim"]) * dtype.itemsize
    caches = cycle([(b.take(s["batch"], kv, seen, s["head_dim"], dtype=dtype),
                     b.take(s["batch"], kv, seen, s["v_head_dim"], dtype=dtype))
                    for _ in range(b.copies(size))])
    attend = b.torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(query, *next(caches)), {}


def grouped_mm(torch: Any) -> Callable[..., Any] | None:
    """Return PyTorch's grouped matrix product, None where this version has none."""
    found = getattr(torch.nn.functional, "grouped_mm", None)
    return found or getattr(torch, "_grouped_mm", None)


def _experts(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    """Gather tokens by expert, two grouped products, and add the results back."""
    torch, experts, top_k = b.torch, s["experts"], s["top_k"]
    product, dtype = grouped_mm(torch), b.type(s["dtype"])
    if product is None:
        return TorchBackend.prepare(b, "moe", s)
    chosen = routed(b.random, s["tokens"], experts, top_k).ravel()
    counts = np.bincount(chosen, minlength=experts)
    ends = torch.tensor(np.cumsum(counts), dtype=torch.int32, device=b.device)
    rows = torch.tensor(np.argsort(chosen, kind="stable") // top_k, device=b.device)
    x, touched = b.fresh(s["tokens"], s["hidden"], dtype=dtype), int((counts > 0).sum())
    size = 3 * touched * s["hidden"] * s["width"] * dtype.itemsize
    sets = cycle([_expert_weights(b, s, dtype) for _ in range(min(8, b.copies(size)))])
    silu = torch.nn.functional.silu

    def run() -> Any:
        up, down = next(sets)
        gate, inner = product(x[rows], up, offs=ends).chunk(2, dim=-1)
        return torch.zeros_like(x).index_add_(0, rows, product(silu(gate) * inner, down, offs=ends))

    return run, {"touched": float(touched)}


def _expert_weights(b: GpuBackend, s: Mapping[str, Any], dtype: Any) -> tuple[Any, Any]:
    up = b.take(s["experts"], 2 * s["width"], s["hidden"], dtype=dtype)
    down = b.take(s["experts"], s["hidden"], s["width"], dtype=dtype)
    return up.transpose(1, 2), down.transpose(1, 2)


def _rms_norm(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    """Normalise rows of 4096; the bytes are those read and written."""
    dtype, width = b.type("bf16"), 4096
    rows = max(1, int(s["bytes"]) // (2 * dtype.itemsize * width))
    weight, norm = b.fresh(width, dtype=dtype), b.torch.nn.functional.rms_norm
    sources = cycle([b.take(rows, width, dtype=dtype) for _ in range(b.copies(s["bytes"] / 2))])
    return lambda: norm(next(sources), (width,), weight), {}


def _copy(b: GpuBackend, s: Mapping[str, Any]) -> Prepared:
    dtype = b.type("bf16")
    size = max(1, int(s["bytes"]) // (2 * dtype.itemsize))
    sources = cycle([b.take(size, dtype=dtype) for _ in range(b.copies(s["bytes"] / 2))])
    target = b.torch.empty(size, dtype=dtype, device=b.device)
    return lambda: target.copy_(next(sources)), {}


KERNELS: dict[tuple[str, str], Callable[[GpuBackend, Mapping[str, Any]], Prepared]] = {
    ("gemm", "fp8"): _fp8_gemm, ("attention_prefill", ""): _prefill,
    ("attention_decode", ""): _decode, ("moe", ""): _experts,
    ("elementwise", "rms_norm"): _rms_norm, ("elementwise", ""): _copy,
}
