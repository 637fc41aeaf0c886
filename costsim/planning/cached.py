"""What prompt tokens found in a cache still cost, and how many a trace would find."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.step import step_time


def cached_time_share(deployment: Deployment, new: Any, cached: Any) -> float:
    """Return the share of a prompt's time that attention to its cached tokens takes.

    Args:
        deployment: that reads it.
        new: tokens to be read. cached: tokens before them that are in the cache.
    """
    if not float(cached) > 0:
        return 0.0

    def seconds(context: Any) -> Any:
        return step_time(deployment, prefill_requests=1.0, prefill_tokens=max(float(new), 1.0),
                         prefill_context=context).seconds  # fmt: skip

    return float(np.clip(1.0 - seconds(0.0) / seconds(cached), 0.0, 1.0))


def hit_share(
    block_hashes: Iterable[Sequence[Hashable]], prompt: Iterable[int], hash_tokens: int
) -> float:
    """Return the share of prompt tokens that a cache without bounds finds.

    A hash stands for all that precedes its block; the last token is always read anew.

    Args:
        block_hashes: of each request, in order of arrival. prompt: tokens of each.
        hash_tokens: tokens of one block.
    """
    seen: set[Hashable] = set()
    found = total = 0
    for hashes, tokens in zip(block_hashes, prompt, strict=True):
        most, hits = max(int(tokens) - 1, 0) // hash_tokens, 0
        for block in hashes[:most]:
            if block not in seen:
                break
            hits += 1
        found, total = found + hits * hash_tokens, total + int(tokens)
        seen.update(hashes)
    return found / total if total else 0.0
