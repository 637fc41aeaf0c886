"""What pruning and quantisation of a trained model cost in quality, as data with sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from costsim.dtypes import bytes_per_element
from costsim.errors import unknown_name
from costsim.loading import read_toml

TABLE = Path(__file__).with_name("compression.toml")


@dataclass(frozen=True)
class Compression:
    """A way to shrink a trained model.

    Args:
        key, title: name, and what to show.
        precision: data type that its weights are served in.
        added_loss: low, central, high [nats per token]; None where nobody published it.
        source, provenance: of that loss.
        kernels: what the times assume.
    """

    key: str
    title: str
    precision: str
    added_loss: tuple[float, float, float] | None
    source: str
    provenance: str
    kernels: str = ""

    @property
    def known(self) -> bool:
        """Whether its loss of quality is published."""
        return self.added_loss is not None

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity after over before; NaN where unknown."""
        return math.exp(self.added_loss[1]) if self.added_loss else math.nan


@lru_cache
def compressions() -> tuple[Compression, ...]:
    """Return all ways to compress that ship."""
    found = []
    for row in read_toml(TABLE)["variants"]:
        loss = row.pop("added_loss", None)
        bytes_per_element(row["precision"])
        found.append(Compression(added_loss=tuple(loss) if loss else None, **row))
    return tuple(found)


def compression(key: str) -> Compression:
    """Return one way to compress.

    Raises:
        InputError: there is no such way.
    """
    found = {c.key: c for c in compressions()}
    if key not in found:
        raise unknown_name("compression", key, found)
    return found[key]
