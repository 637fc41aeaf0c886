"""Errors that are the user's to mend: one clear line each, exit code 2 at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CostsimError(Exception):
    """Base of all errors that costsim raises on purpose."""


class InputError(CostsimError, ValueError):
    """An input is wrong; the message says what, where and what is allowed, in one line."""


class DoesNotFitError(InputError):
    """A model, a request or a layout does not fit on the hardware it was given."""


class UnstableLoadError(InputError):
    """The offered load is above the capacity; the message names the capacity."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the allowed name nearest to ``name``, or ``""``."""
    names = list(allowed)
    folded = {n.lower().replace("-", "_"): n for n in names}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.55)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """Return the error for a name that is not among those allowed.

    Args:
        kind: what the name is for, such as ``"hardware"``.
        name: the name that was given.
        allowed: the names that exist.
    """
    names = sorted(allowed)
    hint = suggestion(name, names)
    if not hint:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        hint = f"; known: {shown}" if names else ""
    return InputError(f"unknown {kind} '{name}'{hint}")
