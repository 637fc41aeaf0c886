"""Quantities with units: parsed into SI, printed for people.

Inside the program everything is SI (s, B, FLOP, W, $); prices per time are $/h, as they are
quoted. Giga is 1e9; GiB is 2^30 and only where the text says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from costsim.errors import InputError, unknown_name

_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _scaled(unit: str, factor: float = 1.0, binary: bool = False) -> dict[str, float]:
    """Return a unit with every decimal (and binary) prefix and its SI factor."""
    table = {prefix + unit: value * factor for prefix, value in _PREFIX.items()}
    if binary:
        table |= {prefix + unit: value * factor for prefix, value in _BINARY.items()}
    return table


_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0,
          "d": 86400.0, "y": 365.0 * 86400.0}

# Dimension -> unit -> factor to SI. The first unit of each is the one it is printed in.
UNITS: dict[str, Mapping[str, float]] = {
    "bytes": _scaled("B", binary=True),
    "bandwidth": {**_scaled("B/s", binary=True), **_scaled("b/s", 0.125), **_scaled("bps", 0.125)},
    "flop": _scaled("FLOP"),
    "flop_rate": {**_scaled("FLOP/s"), **_scaled("FLOPS"), **_scaled("OP/s"), **_scaled("OPS")},
    "time": _TIMES,
    "power": _scaled("W"),
    "energy": {**_scaled("J"), **_scaled("Wh", 3600.0)},
    "money": {"$": 1.0, "USD": 1.0, "k$": 1e3, "M$": 1e6, "B$": 1e9},
    "price_per_hour": {"$/h": 1.0, "USD/h": 1.0, "$/hr": 1.0, "$/d": 1 / 24, "$/month": 1 / 730,
                       "$/y": 1 / 8760},
    "energy_price": {"$/kWh": 1.0, "$/MWh": 1e-3, "c/kWh": 1e-2},
    "token_price": {"$/1M": 1.0, "$/1M tokens": 1.0, "$/M": 1.0, "$/1k": 1e3, "$/1K": 1e3},
    "rate": {"/s": 1.0, "req/s": 1.0, "requests/s": 1.0, "/min": 1 / 60, "req/min": 1 / 60,
             "/h": 1 / 3600, "req/h": 1 / 3600, "/d": 1 / 86400, "req/d": 1 / 86400},
    "token_rate": {"tokens/s": 1.0, "tok/s": 1.0},
    "count": {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12},
    "ratio": {"": 1.0, "%": 0.01, "x": 1.0},
    "carbon_intensity": {"kg/kWh": 1.0, "g/kWh": 1e-3},
}

_EXAMPLES = {
    "bytes": "80 GB, 80 GiB", "bandwidth": "3.35 TB/s, 400 Gb/s", "flop": "1 TFLOP",
    "flop_rate": "989 TFLOP/s", "time": "2 s, 50 ms", "power": "700 W", "energy": "1 kWh",
    "money": "$30,000", "price_per_hour": "$2.10/h", "energy_price": "$0.08/kWh",
    "token_price": "$0.50/1M", "rate": "10/s, 600/min", "token_rate": "50 tokens/s",
    "count": "1000, 70B", "ratio": "0.9, 90 %", "carbon_intensity": "0.4 kg/kWh",
}

# Thousands may be set apart by a comma, a space or an underscore, in groups of three: "1,5 GB"
# is a mistake and not fifteen.
_WHOLE = r"(?:\d{1,3}(?:[,_ ]\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(rf"[+-]?(?:{_WHOLE}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


def parse_quantity(
    value: str | float | int, dimension: str, *, where: str = "", signed: bool = False
) -> float:
    """Return a quantity in SI.

    Args:
        value: a number (taken as SI) or text with a unit, such as ``"3.35 TB/s"``.
        dimension: key of `UNITS`.
        where: what the quantity is for, named in the message.
        signed: allow negative values.

    Raises:
        InputError: not a finite number, negative, or a unit of another dimension.
    """
    if dimension not in UNITS:
        raise unknown_name("dimension", dimension, UNITS)
    prefix = f"{where}: " if where else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{prefix}{value!r} is not a quantity; for example {_EXAMPLES[dimension]}")
    number = _parse_text(value, dimension, prefix) if isinstance(value, str) else float(value)
    if not math.isfinite(number):
        raise InputError(f"{prefix}{value!r} must be a finite number")
    if number < 0 and not signed:
        raise InputError(f"{prefix}{value!r} must not be negative")
    return number


def _parse_text(text: str, dimension: str, prefix: str) -> float:
    allowed = f"for example {_EXAMPLES[dimension]}"
    body = text.strip()
    leading = ""
    if body.startswith("$"):
        leading, body = "$", body[1:].strip()
    found = _NUMBER.match(body)
    if not found:
        raise InputError(f"{prefix}'{text}' is not a number with a unit; {allowed}")
    number = float(re.sub(r"[,_ ]", "", found.group()))
    unit = (leading + body[found.end():].strip()).replace("dense ", "")
    units = UNITS[dimension]
    if unit in units:
        return number * units[unit]
    if unit == "":
        return number
    raise InputError(f"{prefix}'{text}': unit '{unit}' is {_kind_of(unit)}, but "
                     f"{_article(dimension)} is needed; {allowed}")


def _kind_of(unit: str) -> str:
    for dimension, units in UNITS.items():
        if unit in units:
            return _article(dimension)
    return "unknown"


def _article(dimension: str) -> str:
    name = dimension.replace("_", " ")
    return name if name in ("bytes", "money") else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


# Dimension -> units tried from the largest down when a value is printed.
_PRINTED = {
    "bytes": ("TB", "GB", "MB", "kB", "B"), "bandwidth": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "flop": ("EFLOP", "PFLOP", "TFLOP", "GFLOP", "MFLOP", "FLOP"),
    "flop_rate": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "MFLOP/s", "FLOP/s"),
    "time": ("h", "min", "s", "ms", "µs", "ns"), "power": ("MW", "kW", "W"),
    "energy": ("MWh", "kWh", "Wh", "J"),
    "money": ("$",), "price_per_hour": ("$/h",), "energy_price": ("$/kWh",),
    "token_price": ("$/1M",), "rate": ("/s", "/min", "/h", "/d"), "token_rate": ("tokens/s",),
    "count": ("T", "B", "M", "k", ""), "ratio": ("",), "carbon_intensity": ("kg/kWh",),
}


def format_quantity(value: float, dimension: str, digits: int = 3) -> str:
    """Return a quantity in the unit that suits its size, such as ``"3.35 TB/s"``.

    Args:
        value: in SI.
        dimension: key of `UNITS`.
        digits: significant digits.
    """
    if not math.isfinite(value):
        return "–"
    units = UNITS[dimension]
    chosen = next(
        (u for u in _PRINTED[dimension] if abs(value) / units[u] >= 0.9995), _PRINTED[dimension][-1]
    )
    scaled = value / units[chosen]
    text = _significant(scaled, digits)
    if chosen.startswith("$"):
        return f"${text}{chosen[1:]}"
    return f"{text} {chosen}".strip()


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    rounded = f"{value:,.{min(places, 12)}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded
