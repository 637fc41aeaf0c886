"""Who the bill is for: input, output, cache, headroom, failures, cold starts, to the cent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from costsim.errors import InputError

PARTS = ("input", "cached_input", "output", "idle", "failures", "cold_starts")


@dataclass(frozen=True)
class Usage:
    """How the accelerator-seconds that were paid for were spent.

    Args:
        paid_s: accelerator-seconds on the bill.
        busy_s: in steps, those of lost work included.
        input_share: share of busy time on prompts.
        cached_share: share of the prompts' time on tokens found in the cache (attention over
            them, and moving them).
        lost_s: accelerator-seconds of steps whose work was lost to failures and repeated, and of
            replicas that were down while paid for.
        cold_start_s: accelerator-seconds of loading and warming up.
    """

    paid_s: float
    busy_s: float
    input_share: float
    cached_share: float = 0.0
    lost_s: float = 0.0
    cold_start_s: float = 0.0


def allocate(bill_usd: float, usage: Usage) -> dict[str, Decimal]:
    """Return the bill by `PARTS`, whole cents that add up to the bill to the cent.

    Every paid accelerator-second costs the same; what is neither useful, lost nor starting is
    idle headroom. The cents lost to rounding go to the parts that lost most (largest remainder).

    Raises:
        InputError: a share outside 0 to 1, or more seconds used than paid for.
    """
    return to_cents(_seconds(usage), bill_usd)


def to_cents(weights: Mapping[str, float], bill_usd: float) -> dict[str, Decimal]:
    """Return the bill split by weights in whole cents whose sum is the bill, rounded to a cent."""
    total = sum(weights.values())
    if not bill_usd >= 0 or bill_usd == float("inf"):
        raise InputError(f"bill_usd = {bill_usd}: must be finite and not negative")
    if not total > 0 or min(weights.values()) < 0:
        raise InputError("allocation: weights must not be negative, nor all zero")
    bill = int((Decimal(repr(float(bill_usd))) * 100).to_integral_value(ROUND_HALF_UP))
    exact = {name: bill * weight / total for name, weight in weights.items()}
    cents = {name: int(value) for name, value in exact.items()}
    by_loss = sorted(exact, key=lambda name: cents[name] - exact[name])
    missing = bill - sum(cents.values())
    for at in range(abs(missing)):
        name = by_loss[at % len(by_loss)] if missing > 0 else max(cents, key=lambda n: cents[n])
        cents[name] += 1 if missing > 0 else -1
    return {name: Decimal(value) / 100 for name, value in cents.items()}


def _seconds(usage: Usage) -> dict[str, float]:
    for name in ("input_share", "cached_share"):
        value = getattr(usage, name)
        if not 0 <= value <= 1:
            raise InputError(f"allocation: {name} = {value}: must be within 0 to 1")
    if min(usage.paid_s, usage.busy_s, usage.lost_s, usage.cold_start_s) < 0:
        raise InputError("allocation: seconds must not be negative")
    used = usage.busy_s + usage.cold_start_s
    idle = usage.paid_s - max(used, usage.lost_s + usage.cold_start_s)
    if idle < -1e-9 * usage.paid_s:
        raise InputError(f"allocation: {used:g} s used, but only {usage.paid_s:g} s paid for")
    useful = max(usage.busy_s - usage.lost_s, 0.0)
    prompts = useful * usage.input_share
    return {
        "input": prompts * (1.0 - usage.cached_share),
        "cached_input": prompts * usage.cached_share,
        "output": useful - prompts,
        "idle": max(idle, 0.0),
        "failures": usage.lost_s,
        "cold_starts": usage.cold_start_s,
    }
