"""Kernels as Hugging Face ``transformers`` runs them eagerly: norms, rope, cache, experts.

Each is the library's own code (or the same torch call) timed alone on tensors of its own, at sizes
of a grid: the norm's six passes, the rotation of strided queries and keys, ``torch.cat`` of a
cache, the sort-and-loop over experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import cycle
from typing import Any

from costsim.errors import InputError
from costsim.kernels.measure.numpy_kernels import routed
from costsim.kernels.measure.torch_kernels import Prepared, TorchBackend

# Widths that small kernels are measured at; their time follows the bytes they move.
NORM_WIDTH, HEAD_DIM, HEADS, KV_HEADS, FFN_WIDTH, EXPERTS, TOP_K = 640, 64, 8, 4, 1280, 16, 2
VOCABULARY = 16384


def modeling(family: str) -> Any:
    """Return a module of model code, such as that of ``llama``.

    Raises:
        InputError: transformers is not installed, or too old.
    """
    try:
        module = import_module(f"transformers.models.{family}.modeling_{family}")
        import_module("transformers.integrations.moe")
    except ImportError:
        raise InputError("this needs transformers of version 5 or later: "
                         "pip install 'costsim[measure]' 'transformers>=5'") from None
    return module


class TransformersBackend(TorchBackend):
    """The library's kernels on one device.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        cache_bytes: last-level cache, which weights must not stay in.
        dtype: of weights and activations.
        experts: which of the library's implementations of experts runs.
    """

    name = "transformers"

    def __init__(
        self, device: str = "cpu", cache_bytes: float = 32e6, dtype: str = "fp32",
        experts: str = "grouped_mm", seed: int = 0,
    ) -> None:
        super().__init__(device, cache_bytes, (dtype,), seed)
        self.experts = experts
        self.llama, self.mixtral = modeling("llama"), modeling("mixtral")

    def maker(self, operator: str) -> Callable[[Any, Mapping[str, Any]], Prepared]:
        """Return what prepares kernels of an operator."""
        own = {"moe": _moe, "elementwise": _elementwise}
        return own.get(operator) or super().maker(operator)


    def streaming(self, size_bytes: float) -> Callable[[], object]:
        """Return a call that multiplies one row by a matrix of some size out of memory."""
        dtype, inner = self.type(self.dtypes[0]), 1024
        outer = max(1, int(size_bytes) // (inner * dtype.itemsize))
        x = self.fresh(1, inner, dtype=dtype)
        weights = cycle([self.take(outer, inner, dtype=dtype)
                         for _ in range(self.copies(size_bytes))])
        linear, inference = self.torch.nn.functional.linear, self.torch.inference_mode

        def run() -> object:
            with inference():
                return linear(x, next(weights))

        return run


def _elementwise(b: TransformersBackend, s: Mapping[str, Any]) -> Prepared:
    dtype = b.type(b.dtypes[0])
    elements = max(1, int(s["bytes"]) // dtype.itemsize)
    return KINDS[s["kind"]](b, elements, dtype), {}


Maker = Callable[[TransformersBackend, int, Any], Callable[[], object]]


def _copy(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    source = b.take(max(1, elements // 2), dtype=dtype)
    target = b.torch.empty_like(source)
    return lambda: target.copy_(source)


def _norm(width: int) -> Maker:
    def make(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
        module = b.llama.LlamaRMSNorm(width).to(b.device, dtype)
        x = b.fresh(1, max(1, elements // 2 // width), width, dtype=dtype)
        return lambda: module(x)

    return make


def _rope(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    tokens = max(1, elements // 2 // ((HEADS + KV_HEADS) * HEAD_DIM))
    query = b.fresh(1, tokens, HEADS, HEAD_DIM, dtype=dtype).transpose(1, 2)
    key = b.fresh(1, tokens, KV_HEADS, HEAD_DIM, dtype=dtype).transpose(1, 2)
    cos, sin = (b.fresh(1, tokens, HEAD_DIM, dtype=dtype) for _ in range(2))
    return lambda: b.llama.apply_rotary_pos_emb(query, key, cos, sin)


def _concatenate(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    seen = max(2, elements // 2 // (KV_HEADS * HEAD_DIM))
    new = b.fresh(1, KV_HEADS, 1, HEAD_DIM, dtype=dtype)
    # Results are kept as a model keeps them: each replaces the one of a whole round before.
    kept = [b.take(1, KV_HEADS, seen - 1, HEAD_DIM, dtype=dtype).clone()
            for _ in range(b.copies(elements * dtype.itemsize / 2))]
    turns = cycle(range(len(kept)))

    def run() -> object:
        i = next(turns)
        whole = b.torch.cat([kept[i], new], dim=-2)
        kept[i] = whole[:, :, :-1]
        return whole

    return run


def _add(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    x, y = (b.fresh(max(1, elements // 3), dtype=dtype) for _ in range(2))
    return lambda: x + y


def _swiglu(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    rows = max(1, elements // 3 // FFN_WIDTH)
    gate, up = (b.fresh(1, rows, FFN_WIDTH, dtype=dtype) for _ in range(2))
    silu = b.torch.nn.functional.silu
    return lambda: silu(gate) * up


def _embedding(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    table = b.take(VOCABULARY, NORM_WIDTH, dtype=dtype)
    rows = max(1, elements // 2 // NORM_WIDTH)
    chosen = cycle([b.torch.randint(0, VOCABULARY, (1, rows), device=b.device) for _ in range(8)])
    embed = b.torch.nn.functional.embedding
    return lambda: embed(next(chosen), table)


def _routing(b: TransformersBackend, elements: int, dtype: Any) -> Callable[[], object]:
    logits = b.fresh(max(1, elements // 2 // EXPERTS), EXPERTS, dtype=dtype)
    torch = b.torch

    def run() -> object:
        shares = torch.nn.functional.softmax(logits.float(), dim=-1)
        weights, chosen = torch.topk(shares, TOP_K, dim=-1)
        weights /= weights.sum(dim=-1, keepdim=True)
        return weights.to(logits.dtype), chosen

    return run


KINDS: dict[str, Maker] = {
    "": _copy, "rms_norm": _norm(NORM_WIDTH), "head_norm": _norm(HEAD_DIM), "rope": _rope,
    "concatenate": _concatenate, "add": _add, "swiglu": _swiglu, "embedding": _embedding,
    "routing": _routing,
}


def _moe(b: TransformersBackend, s: Mapping[str, Any]) -> Prepared:
    from transformers import MixtralConfig

    torch, dtype = b.torch, b.type(s["dtype"])
    hidden, width, experts = s["hidden"], s["width"], s["experts"]
    config = MixtralConfig(hidden_size=hidden, intermediate_size=width, num_local_experts=experts,
                           num_experts_per_tok=s["top_k"])
    config._experts_implementation = b.experts
    chosen = routed(b.random, s["tokens"], experts, s["top_k"])
    index = torch.from_numpy(chosen).to(b.device)
    shares = torch.full(index.shape, 1.0 / s["top_k"], dtype=dtype, device=b.device)
    x = b.fresh(s["tokens"], hidden, dtype=dtype)
    touched = len(set(chosen.reshape(-1).tolist()))
    copies = min(8, b.copies(3 * hidden * width * dtype.itemsize * touched))
    layers = cycle([_experts(b, config, hidden, width, experts, dtype) for _ in range(copies)])
    return lambda: next(layers)(x, index, shares), {"touched": float(touched)}


def _experts(
    b: TransformersBackend, config: Any, hidden: int, width: int, experts: int, dtype: Any
) -> Any:
    """Return a layer of experts whose weights lie at a place of their own in the pool."""
    with b.torch.device("meta"):
        module = b.mixtral.MixtralExperts(config)
    parameter = b.torch.nn.Parameter
    module.gate_up_proj = parameter(b.take(experts, 2 * width, hidden, dtype=dtype), False)
    module.down_proj = parameter(b.take(experts, hidden, width, dtype=dtype), False)
    return module
