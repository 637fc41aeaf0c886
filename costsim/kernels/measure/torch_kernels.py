"""Kernels in PyTorch, on the CPU or on a GPU (extra ``measure``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.kernels.measure.numpy_kernels import CACHE_MULTIPLE, MOST_COPIES, Call, routed

Prepared = tuple[Call, dict[str, Any]]


def torch_module() -> Any:
    """Return PyTorch.

    Raises:
        InputError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise InputError("backend torch needs PyTorch: pip install 'costsim[measure]'") from None
    return torch


class TorchBackend:
    """PyTorch on one device.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        cache_bytes: last-level cache, which weights must not stay in.
        dtypes: measured; default: fp32 and bf16 on the CPU, bf16 on a GPU.
    """

    name = "torch"

    def __init__(
        self, device: str = "cpu", cache_bytes: float = 32e6, dtypes: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        self.torch, self.device, self.cache_bytes = torch_module(), device, cache_bytes
        if device == "cuda" and not self.torch.cuda.is_available():
            raise InputError("backend torch: this machine has no CUDA device")
        self.dtypes = dtypes or (("fp32", "bf16") if device == "cpu" else ("bf16",))
        self.random = np.random.default_rng(seed)
        self.pools: dict[Any, Any] = {}
        self.at = 0

    def synchronise(self) -> None:
        """Wait until the device has finished."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def type(self, name: str) -> Any:
        """Return torch's data type."""
        return {"fp32": self.torch.float32, "bf16": self.torch.bfloat16,
                "fp16": self.torch.float16}[name]

    def fresh(self, *shape: int, dtype: Any) -> Any:
        """Return an array of its own, as activations are."""
        return self.torch.randn(*shape, device=self.device, dtype=self.torch.float32).to(dtype)

    def take(self, *shape: int, dtype: Any) -> Any:
        """Return an array from the pool, at another place each time."""
        size = int(np.prod(shape))
        pool = self.pools.get(dtype)
        if pool is None or size > pool.numel():
            least = int(CACHE_MULTIPLE * self.cache_bytes) // 2
            few = self.fresh(1 << 16, dtype=dtype) * 0.1
            pool = few.repeat(max(size, least) // few.numel() + 1)
            self.pools[dtype] = pool
        if self.at + size > pool.numel():
            self.at = 0
        found = pool[self.at:self.at + size].view(*shape)
        self.at += size
        return found

    def copies(self, size_bytes: float) -> int:
        """Return how many copies of a weight leave the cache between two uses of one."""
        wanted = int(np.ceil(CACHE_MULTIPLE * self.cache_bytes / max(size_bytes, 1.0)))
        return max(1, min(MOST_COPIES, wanted))

    def maker(self, operator: str) -> Callable[[Any, Mapping[str, Any]], Prepared]:
        """Return what prepares kernels of an operator."""
        return _KERNELS[operator]

    def prepare(self, operator: str, shape: Mapping[str, Any]) -> Prepared:
        """Return a kernel ready to be called, and shape columns that only the data decide."""
        call, more = self.maker(operator)(self, shape)
        torch = self.torch

        def quietly() -> object:
            with torch.inference_mode():
                return call()

        return quietly, more


def _gemm(b: TorchBackend, s: Mapping[str, Any]) -> Prepared:
    m, n, k, dtype = s["m"], s["n"], s["k"], b.type(s["dtype"])
    x = b.fresh(m, k, dtype=dtype)
    weights = cycle([b.take(n, k, dtype=dtype)
                     for _ in range(b.copies(n * k * dtype.itemsize))])
    linear = b.torch.nn.functional.linear
    return lambda: linear(x, next(weights)), {}


def causal_attention(
    b: TorchBackend, s: Mapping[str, Any], mask: Callable[[int, int], Any]
) -> Prepared:
    """Return attention of a prompt's chunk.

    Args:
        b: what runs it.
        s: batch, new_tokens, context, heads, kv_heads, head_dim, v_head_dim, dtype.
        mask: of new tokens and all tokens, for a chunk after cached ones: row i sees the cache
            and i + 1 new tokens.
    """
    dtype, q = b.type(s["dtype"]), s["new_tokens"]
    seen = q + s["context"]
    query = b.fresh(s["batch"], s["heads"], q, s["head_dim"], dtype=dtype)
    key = b.fresh(s["batch"], s["kv_heads"], seen, s["head_dim"], dtype=dtype)
    value = b.fresh(s["batch"], s["kv_heads"], seen, s["v_head_dim"], dtype=dtype)
    attend = b.torch.nn.functional.scaled_dot_product_attention
    if not s["context"]:
        return lambda: attend(query, key, value, is_causal=True, enable_gqa=True), {}
    seen_by = mask(q, seen)
    return lambda: attend(query, key, value, attn_mask=seen_by, enable_gqa=True), {}


def _attention_prefill(b: TorchBackend, s: Mapping[str, Any]) -> Prepared:
    def mask(new: int, seen: int) -> Any:
        return b.torch.ones(new, seen, dtype=b.torch.bool, device=b.device).tril(s["context"])

    return causal_attention(b, s, mask)


def _attention_decode(b: TorchBackend, s: Mapping[str, Any]) -> Prepared:
    dtype, seen = b.type(s["kv_dtype"]), s["context"]
    query = b.fresh(s["batch"], s["heads"], 1, s["head_dim"], dtype=dtype)
    size = s["batch"] * s["kv_heads"] * seen * (s["head_dim"] + s["v_head_dim"]) * dtype.itemsize
    shape = (s["batch"], s["kv_heads"], seen)
    caches = cycle([(b.take(*shape, s["head_dim"], dtype=dtype),
                     b.take(*shape, s["v_head_dim"], dtype=dtype)) for _ in range(b.copies(size))])
    attend = b.torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(query, *next(caches), enable_gqa=True), {}


def _moe(b: TorchBackend, s: Mapping[str, Any]) -> Prepared:
    hidden, width, experts, dtype = s["hidden"], s["width"], s["experts"], b.type(s["dtype"])
    chosen = routed(b.random, s["tokens"], experts, s["top_k"])
    hit = [(int(e), b.torch.from_numpy(np.flatnonzero((chosen == e).any(axis=1))).to(b.device))
           for e in np.unique(chosen)]
    x = b.fresh(s["tokens"], hidden, dtype=dtype)
    sets = cycle([[(b.take(2 * width, hidden, dtype=dtype), b.take(hidden, width, dtype=dtype))
                   for _ in range(experts)]
                  for _ in range(min(8, b.copies(3 * hidden * width * dtype.itemsize * len(hit))))])
    functional, torch = b.torch.nn.functional, b.torch

    def run() -> Any:
        out, weights = torch.zeros_like(x), next(sets)
        for expert, rows in hit:
            up, down = weights[expert]
            gate, inner = functional.linear(x[rows], up).chunk(2, dim=-1)
            found = functional.linear(functional.silu(gate) * inner, down)
            out.index_add_(0, rows, found)
        return out

    return run, {"touched": float(len(hit))}


def _elementwise(b: TorchBackend, s: Mapping[str, Any]) -> Prepared:
    dtype = b.type(b.dtypes[-1])
    size = max(1, int(s["bytes"]) // (2 * dtype.itemsize))
    source = b.take(size, dtype=dtype)
    target = b.torch.empty_like(source)
    return lambda: target.copy_(source), {}


_KERNELS: dict[str, Callable[[TorchBackend, Mapping[str, Any]], Prepared]] = {
    "gemm": _gemm, "attention_prefill": _attention_prefill,
    "attention_decode": _attention_decode, "moe": _moe, "elementwise": _elementwise,
}
