"""The projections around latent attention, which are GEMMs, as shapes.

The layer's measured modules and the model's operators take them from here alike, so that what a
module takes beside them can be measured and put back.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Product(NamedTuple):
    """The columns and the inner size of a GEMM."""

    n: Any
    k: Any


def latent_inward(
    hidden: Any, heads: Any, key: Any, latent: Any, q_lora_rank: int, index_heads: int,
    index_head_dim: int, gate: Any = 0.0,
) -> list[Product]:
    """Return the projections that lead into latent attention (DeepSeek-V2, arXiv:2405.04434).

    Args:
        hidden: size of the model.
        heads: query heads of one rank; key: their size, both parts.
        latent: cached numbers a token.
        q_lora_rank: of the queries; 0: they come straight from the hidden state.
        index_heads, index_head_dim: of a sparse layer's indexer; no heads where it has none.
        gate: width of an output gate.
    """
    own = heads * key
    first = latent + (q_lora_rank or own) + (index_head_dim if index_heads else 0) + gate
    found = [Product(first, hidden)]
    if q_lora_rank:
        found.append(Product(own + index_heads * index_head_dim, q_lora_rank))
    return found


def latent_expansion(heads: Any, nope_head_dim: Any, v_head_dim: Any, kv_lora_rank: Any) -> Product:
    """Return the product between heads and latent space, absorbed or not."""
    return Product(heads * (nope_head_dim + v_head_dim), kv_lora_rank)


def latent_outward(hidden: Any, heads: Any, v_head_dim: Any) -> Product:
    """Return the output projection."""
    return Product(hidden, heads * v_head_dim)


def rotated_bytes(tokens: Any, heads: Any, kv_heads: Any, head_dim: Any) -> Any:
    """Return the bytes of rotating queries and keys and writing to the cache, in 16 bit."""
    return tokens * (2.0 * heads + kv_heads) * head_dim * 4.0
