"""From a handful of numbers (active parameters, experts, granularity) to a transformer to price."""

from __future__ import annotations

from dataclasses import dataclass

from costsim.models.architecture import Attention, FeedForward, Layers, Model

# Width over depth of dense models grows slowly with size; 96 to 128 for 7B to 400B (Llama 3:
# 4096/32 = 128, 8192/80 = 102, 16384/126 = 130).
ASPECT = 110
HEAD_DIM = 128
VOCAB = 128_256
_FFN_SHARE = 2.0 / 3.0


@dataclass(frozen=True)
class SparseDesign:
    """A design of the trade-off.

    Args:
        active: parameters that a token uses, embeddings aside.
        experts: routed experts over those a token uses; 1 for a dense model.
        granularity: experts of a token (top-k); each is this much narrower.
        shared: shared experts of the same width, always used.
    """

    active: float
    experts: int = 1
    granularity: int = 1
    shared: int = 0

    @property
    def top_k(self) -> int:
        """Routed experts per token."""
        return self.granularity

    @property
    def expert_ratio(self) -> float:
        """Expert weights in total over those a token uses, shared experts in both."""
        return (self.experts * self.granularity + self.shared) / (self.granularity + self.shared)

    @property
    def fineness(self) -> int:
        """Width of the dense FFN over that of one expert: the granularity of the laws."""
        return self.granularity + self.shared

    @property
    def name(self) -> str:
        """A short name."""
        size = f"{self.active / 1e9:.3g}B"
        if self.experts == 1:
            return f"dense {size}"
        name = f"MoE {size} active, {self.experts * self.granularity} experts, top {self.top_k}"
        return f"{name}, {self.shared} shared" if self.shared else name


def _rounded(value: float, to: int) -> int:
    return max(to, round(value / to) * to)


def model_of(design: SparseDesign, max_context: int = 32_768) -> Model:
    """Return a transformer of the design: grouped-query attention, gated FFN or experts.

    A third of a layer's active weights is attention, two thirds FFN, as in Llama 3 (d² · 2.25
    against 3·d·width with width ≈ 3.5·d gives 0.18 to 0.25; wider KV sharing makes up the rest).

    Args:
        design: what to build; the active parameters are met within a few per cent.
        max_context: tokens.
    """
    # active ≈ layers · (attention 2.25·d² + ffn 3·d·width), layers = d / ASPECT, width = 3.25·d.
    per_layer = 2.25 + 3 * 3.25
    hidden = _rounded((design.active * ASPECT / per_layer) ** (1.0 / 3.0), 256)
    layers = max(2, round(hidden / ASPECT))
    heads = hidden // HEAD_DIM
    kv_heads = next(k for k in (8, 4, 2, 1) if heads % k == 0)
    attention = Attention("full", heads, kv_heads, HEAD_DIM, HEAD_DIM)
    attention_weights = hidden * (2 * heads + 2 * kv_heads) * HEAD_DIM
    width = (design.active / layers - attention_weights) / (3 * hidden)
    ffn = _ffn(design, _rounded(width, 64))
    return Model(
        name=design.name, title=design.name, hidden_size=hidden, vocab_size=VOCAB,
        layers=(Layers(layers, attention, ffn),), max_context=max_context,
        provenance="hypothetical", source="a design of the sparsity study",
    )


def _ffn(design: SparseDesign, width: int) -> FeedForward:
    if design.experts == 1:
        return FeedForward("dense", width)
    each = _rounded(width / (design.granularity + design.shared), 64)
    return FeedForward("moe", each, experts=design.experts * design.granularity,
                       top_k=design.top_k, shared_width=design.shared * each)


def sizes(design: SparseDesign) -> tuple[float, float]:
    """Return active and total parameters of the built model, embeddings aside."""
    from costsim.models.count import parameters

    counted = parameters(model_of(design))
    outside = counted.embedding + counted.head
    return float(counted.active - outside), float(counted.total - outside)
