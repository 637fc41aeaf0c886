"""A decoder on random weights, shaped like a model that is served, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costsim.kernels.gpu_harness.backend import grouped_mm

EPSILON = 1e-5


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder.

    Args:
        name: of the model whose shape it is.
        layers, hidden, heads, kv_heads, head_dim, vocabulary: as in the model's configuration.
        width: inner width of the feed-forward, or of one expert.
        experts, top_k: routed experts and how many a token takes; 0: a dense feed-forward.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    width: int
    experts: int = 0
    top_k: int = 0

    @property
    def parameters(self) -> int:
        """Weights of the matrices."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        feed_forward = 3 * self.hidden * self.width * max(self.experts, 1)
        router = self.hidden * self.experts
        each = attention + feed_forward + router
        return self.layers * each + 2 * self.vocabulary * self.hidden

    def cache_elements(self, batch: int, context: int) -> int:
        """Return elements of the keys and values of a batch."""
        return 2 * self.layers * batch * context * self.kv_heads * self.head_dim


# Llama-3.1-8B and Qwen3-30B-A3B, from their configurations.
DENSE = Decoder("llama-3.1-8b", 32, 4096, 32, 8, 128, 128256, 14336)
MIXTURE = Decoder("qwen3-30b-a3b", 48, 2048, 32, 4, 128, 151936, 768, 128, 8)


class Step:
    """One decode step of a batch over full caches; its buffers stay where they are.

    Args:
        torch: the module.
        model: sizes.
        batch: requests.
        context: tokens that each attends to, the new one among them.
        device: ``"cuda"`` or ``"cpu"``.
    """

    def __init__(self, torch: Any, model: Decoder, batch: int, context: int, device: str) -> None:
        self.torch, self.model, self.batch = torch, model, batch
        self.dtype = torch.bfloat16
        self.device = device
        m = model
        inward = m.head_dim * (m.heads + 2 * m.kv_heads)
        self.embedding = self.random(m.vocabulary, m.hidden)
        self.head = self.random(m.vocabulary, m.hidden)
        self.layers = [self._layer(inward) for _ in range(m.layers)]
        shape = (batch, m.kv_heads, context, m.head_dim)
        self.caches = [(self.random(*shape), self.random(*shape)) for _ in range(m.layers)]
        self.norm = torch.ones(m.hidden, device=device, dtype=self.dtype)
        self.tokens = torch.zeros(batch, device=device, dtype=torch.long)
        self.at = context - 1
        angle = torch.rand(m.head_dim // 2, device=device)
        self.cosine, self.sine = angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def random(self, *shape: int) -> Any:
        """Return weights of a size that keeps activations near one."""
        scale = shape[-1] ** -0.5
        found = self.torch.empty(shape, device=self.device, dtype=self.dtype)
        return found.normal_(0.0, scale)

    def _layer(self, inward: int) -> dict[str, Any]:
        m = self.model
        layer = {"inward": self.random(inward, m.hidden),
                 "outward": self.random(m.hidden, m.heads * m.head_dim)}
        if not m.experts:
            return {**layer, "up": self.random(2 * m.width, m.hidden),
                    "down": self.random(m.hidden, m.width)}
        return {**layer, "router": self.random(m.experts, m.hidden),
                "up": self.random(m.experts, 2 * m.width, m.hidden),
                "down": self.random(m.experts, m.hidden, m.width)}

    def run(self) -> Any:
        """Return the next token of each request."""
        functional = self.torch.nn.functional
        with self.torch.inference_mode():
            x = functional.embedding(self.tokens, self.embedding)
            for layer, cache in zip(self.layers, self.caches, strict=True):
                x = x + self._attend(layer, cache, self._normed(x))
                x = x + self._feed(layer, self._normed(x))
            return functional.linear(self._normed(x), self.head).argmax(dim=-1)

    def _normed(self, x: Any) -> Any:
        shape = (self.model.hidden,)
        return self.torch.nn.functional.rms_norm(x, shape, self.norm, EPSILON)

    def _turned(self, x: Any) -> Any:
        """Return heads with the rotary embedding applied."""
        first, second = x.chunk(2, dim=-1)
        return self.torch.cat((first * self.cosine - second * self.sine,
                               second * self.cosine + first * self.sine), dim=-1)

    def _attend(self, layer: dict[str, Any], cache: tuple[Any, Any], x: Any) -> Any:
        m, functional = self.model, self.torch.nn.functional
        mixed = functional.linear(x, layer["inward"]).view(self.batch, -1, m.head_dim)
        query, key, value = mixed.split((m.heads, m.kv_heads, m.kv_heads), dim=1)
        keys, values = cache
        keys[:, :, self.at] = self._turned(key)
        values[:, :, self.at] = value
        # Heads that share keys are rows of one query: the cache is read once.
        rows = self._turned(query).view(self.batch, m.kv_heads, -1, m.head_dim)
        seen = functional.scaled_dot_product_attention(rows, keys, values)
        return functional.linear(seen.reshape(self.batch, -1), layer["outward"])

    def _feed(self, layer: dict[str, Any], x: Any) -> Any:
        functional = self.torch.nn.functional
        if self.model.experts:
            return self._route(layer, x)
        gate, inner = functional.linear(x, layer["up"]).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * inner, layer["down"])

    def _route(self, layer: dict[str, Any], x: Any) -> Any:
        """Return the experts' sum; counts stay on the device, so that a graph can hold it."""
        torch, m = self.torch, self.model
        functional = torch.nn.functional
        scores = functional.linear(x, layer["router"]).softmax(dim=-1, dtype=torch.float32)
        weight, chosen = scores.topk(m.top_k, dim=-1)
        weight = (weight / weight.sum(dim=-1, keepdim=True)).to(self.dtype)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.zeros(m.experts, device=x.device, dtype=torch.int32)
        ones = torch.ones(len(order), device=x.device, dtype=torch.int32)
        ends = counts.scatter_add_(0, chosen.flatten(), ones).cumsum(0, dtype=torch.int32)
        rows = order // m.top_k
        product = grouped(torch)
        gate, inner = product(x[rows], layer["up"].transpose(1, 2), ends).chunk(2, dim=-1)
        found = product(functional.silu(gate) * inner, layer["down"].transpose(1, 2), ends)
        return torch.zeros_like(x).index_add_(
            0, rows, found * weight.flatten()[order].unsqueeze(-1))


def grouped(torch: Any) -> Callable[[Any, Any, Any], Any]:
    """Return the product of rows, sorted by expert, with each expert's matrix.

    PyTorch's grouped product where it has one for the device; else one product an expert, which
    no graph can hold.
    """
    product = grouped_mm(torch)

    def apply(rows: Any, weights: Any, ends: Any) -> Any:
        if product is not None and rows.device.type == "cuda":
            return product(rows, weights, offs=ends)
        bounds = [0, *ends.tolist()]
        return torch.cat([rows[a:b] @ w for a, b, w in zip(
            bounds[:-1], bounds[1:], weights, strict=True)])

    return apply
