"""Engine features that are more than a number, from words: drafting and expert load.

    engine.speculation   none, mtp:TOKENS:ACCEPTANCE, eagle:TOKENS:ACCEPTANCE,
                         draft_model:TOKENS:ACCEPTANCE:MODEL
    engine.routing       uniform, balanced, power_law:ALPHA, measured:FILE (tokens of each expert
                         in the order of their numbers: a JSON list, or one number a line)
"""

from __future__ import annotations

import json

from costsim.engine.settings import Routing, Speculation
from costsim.errors import InputError, unknown_name
from costsim.loading import read_text

METHODS = ("mtp", "eagle", "draft_model")
ROUTINGS = ("uniform", "balanced", "power_law", "measured")


def speculation_from(text: str) -> Speculation | None:
    """Return the drafting that words describe.

    Raises:
        InputError: the method is unknown or a figure is wrong.
    """
    if text == "none":
        return None
    method, *rest = text.split(":", 3)
    if method not in METHODS:
        raise InputError(str(unknown_name("drafting method", method, [*METHODS, "none"])))
    wanted = 3 if method == "draft_model" else 2
    if len(rest) != wanted:
        form = f"{method}:TOKENS:ACCEPTANCE" + (":MODEL" if wanted == 3 else "")
        raise InputError(f"'{text}': must look like {form}, for example "
                         f"{method}:3:0.7{':llama-3.1-8b' if wanted == 3 else ''}")
    tokens, acceptance = _figure(rest[0], "draft tokens", text), _figure(rest[1], "acceptance",
                                                                       text)
    return checked_speculation(
        Speculation(method, int(tokens), acceptance, *rest[2:]), tokens)


def checked_speculation(drafting: Speculation, tokens: float) -> Speculation:
    """Return drafting whose figures are possible.

    Raises:
        InputError: they are not.
    """
    if tokens != int(tokens) or not 1 <= tokens <= 64:
        raise InputError(f"draft tokens = {tokens:g}: must be a whole number from 1 to 64")
    if not 0 <= drafting.acceptance <= 1:
        raise InputError(f"acceptance = {drafting.acceptance:g}: must be from 0 to 1")
    return drafting


def routing_from(text: str, experts: int) -> Routing:
    """Return the expert load that words describe.

    Args:
        text: as in this module's description.
        experts: of the model, as many counts must be measured; 0 where it is not known yet.

    Raises:
        InputError: the kind is unknown, or figures are wrong.
    """
    kind, _, rest = text.partition(":")
    if kind not in ROUTINGS:
        raise InputError(str(unknown_name("expert load", kind, ROUTINGS)))
    if kind == "power_law":
        alpha = _figure(rest, "the exponent", text)
        if not 0 <= alpha <= 5:
            raise InputError(f"'{text}': the exponent must be from 0 to 5")
        return Routing(kind, alpha=alpha)
    if kind == "measured":
        return Routing(kind, counts=_counts(rest, experts))
    if rest:
        raise InputError(f"'{text}': {kind} takes no figure")
    return Routing(kind)


def _figure(text: str, what: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"'{whole}': {what} must be a number, not '{text}'") from None


def _counts(path: str, experts: int) -> tuple[float, ...]:
    text = read_text(path)
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else text.split()
        counts = tuple(float(v) for v in found)
    except (ValueError, TypeError):
        raise InputError(f"{path}: must hold one number for each expert") from None
    if experts and len(counts) != experts:
        raise InputError(f"{path}: {len(counts)} counts, but the model has {experts} experts in "
                         "a layer")
    if not all(0 <= c < float("inf") for c in counts) or sum(counts) <= 0:
        raise InputError(f"{path}: counts must be finite, not negative and not all zero")
    return counts
