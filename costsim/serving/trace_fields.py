"""The requests of a trace as columns, and how its times and counts are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from costsim.errors import InputError

MAX_TOKENS = 2**31
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?"
)


@dataclass(frozen=True)
class Trace:
    """Requests of a trace.

    Args:
        arrival: seconds from the first, never falling.
        prompt, output: tokens.
        block_hashes: per request, where the trace has them.
        hash_tokens: tokens of one hash block.
        session: number of the session, -1 for none.
        dropped: rows left out because they had no output (failed requests of BurstGPT).
    """

    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    block_hashes: list[Any] | None = None
    hash_tokens: int = 512
    session: np.ndarray | None = None
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.arrival)


def count_of(text: str, where: str, name: str) -> int:
    """Return a count of tokens, or raise InputError."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {name} = '{text}' is not a number") from None
    if not 0 <= value < MAX_TOKENS:
        raise InputError(f"{where}: {name} = {text}: must be a count of tokens, not negative")
    return int(value)


def seconds_reader() -> Any:
    """Return a reader of times that are seconds, or dates with up to nine decimals.

    Dates count from the first one read: a double holds a date since 1970 to 0.2 us only.
    """
    whole_of: dict[str, int] = {}
    origin: list[int] = []

    def read(text: str, where: str) -> float:
        try:
            value = float(text)
        except ValueError:
            pass
        else:
            if not np.isfinite(value) or value < 0:
                raise InputError(f"{where}: time = {text}: must be finite and not negative")
            return value
        found = _DATE.fullmatch(text.strip())
        if not found:
            raise InputError(f"{where}: time '{text}' is neither seconds nor a date")
        day, decimals, zone = found.groups()
        key = day + (zone or "+00:00").replace("Z", "+00:00")
        if key not in whole_of:
            whole_of.clear()
            try:
                whole_of[key] = int(datetime.fromisoformat(key).timestamp())
            except ValueError:
                raise InputError(f"{where}: time '{text}' is neither seconds nor a date") from None
        if not origin:
            origin.append(whole_of[key])
        return whole_of[key] - origin[0] + float(f"0.{decimals or 0}")

    return read
