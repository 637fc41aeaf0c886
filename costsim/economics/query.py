"""$ per query and per million tokens from $/h and rates: pure functions that broadcast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SECONDS_PER_HOUR = 3600.0
MILLION = 1e6


def usd_per_query(usd_per_hour: Any, queries_per_s: Any) -> Any:
    """Return fleet $/s over completed queries/s.

    Args:
        usd_per_hour: of the replica or fleet (accelerators × $/h each).
        queries_per_s: completed by the same; 0 gives infinity.
    """
    return _per(usd_per_hour, queries_per_s)


def usd_per_million_tokens(usd_per_hour: Any, tokens_per_s: Any) -> Any:
    """Return $ per 1M tokens, all cost laid on the tokens counted.

    Args:
        usd_per_hour: of the replica or fleet.
        tokens_per_s: input and output tokens, or output alone, as the caller means.
    """
    return _per(usd_per_hour, tokens_per_s) * MILLION


@dataclass(frozen=True)
class TokenPrice:
    """What tokens cost, input and output apart.

    Args:
        usd_per_query: of a query with ``isl`` input and ``osl`` output tokens.
        usd_per_million_input_tokens, usd_per_million_output_tokens: whose sum over the query's
            tokens is ``usd_per_query``.
        usd_per_million_tokens: over input and output together.
    """

    usd_per_query: Any
    usd_per_million_input_tokens: Any
    usd_per_million_output_tokens: Any
    usd_per_million_tokens: Any


def split(usd_per_query: Any, isl: Any, osl: Any, input_time_share: Any) -> TokenPrice:
    """Return the price of input and output tokens, by the share of time that each uses.

    Args:
        usd_per_query: $.
        isl, osl: input and output tokens of a query.
        input_time_share: share of the accelerators' time spent on prompts, 0 to 1.

    All broadcast. Input plus output adds up to the query: p_in·isl + p_out·osl = usd_per_query.
    """
    usd, isl, osl = (np.asarray(v, float) for v in (usd_per_query, isl, osl))
    share = np.asarray(input_time_share, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return TokenPrice(
            usd,
            np.where(isl > 0, usd * share / isl * MILLION, 0.0),
            np.where(osl > 0, usd * (1.0 - share) / osl * MILLION, 0.0),
            usd / (isl + osl) * MILLION,
        )


def token_price(
    usd_per_hour: Any, queries_per_s: Any, isl: Any, osl: Any, input_time_share: Any
) -> TokenPrice:
    """Return all prices of an operating point from its $/h and its queries per second."""
    return split(usd_per_query(usd_per_hour, queries_per_s), isl, osl, input_time_share)


def _per(usd_per_hour: Any, per_s: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(usd_per_hour, float) / SECONDS_PER_HOUR / np.asarray(per_s, float)
