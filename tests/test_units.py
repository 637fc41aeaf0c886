"""Quantities with units: parsed, printed, refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.units import UNITS, format_quantity, parse_quantity

READ = [
    ("80 GB", "bytes", 80e9), ("80 GiB", "bytes", 80 * 2**30), ("80GB", "bytes", 80e9),
    ("512", "bytes", 512.0), ("3.35 TB/s", "bandwidth", 3.35e12),
    ("900 Gb/s", "bandwidth", 112.5e9), ("400 Gbps", "bandwidth", 50e9),
    ("989 TFLOP/s", "flop_rate", 989e12), ("989 TFLOPS", "flop_rate", 989e12),
    ("1,979 TFLOPS", "flop_rate", 1979e12), ("624 TOP/s", "flop_rate", 624e12),
    ("50 ms", "time", 0.05), ("2.5 us", "time", 2.5e-6), ("2.5 µs", "time", 2.5e-6),
    ("700 W", "power", 700.0), ("1.4 kW", "power", 1400.0), ("1 kWh", "energy", 3.6e6),
    ("$30,000", "money", 30000.0), ("30000", "money", 30000.0), ("1.2 M$", "money", 1.2e6),
    ("$2.10/h", "price_per_hour", 2.10), ("2.1 $/h", "price_per_hour", 2.1),
    ("$730/month", "price_per_hour", 1.0), ("$0.08/kWh", "energy_price", 0.08),
    ("8 c/kWh", "energy_price", 0.08), ("70B", "count", 70e9), ("1_000", "count", 1000.0),
    ("90 %", "ratio", 0.9), ("0.5x", "ratio", 0.5), ("50 tokens/s", "token_rate", 50.0),
    ("600/min", "rate", 10.0), ("$0.50/1M", "token_price", 0.5), (".5 s", "time", 0.5),
    (" 2e3 s ", "time", 2000.0),
]


@pytest.mark.parametrize(("text", "dimension", "expected"), READ)
def test_text_is_read_into_si(text: str, dimension: str, expected: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(expected, rel=1e-12)


REFUSED = [
    ("3.35 TFLOP/s", "bandwidth", "flop rate"), ("3.35 TB/s", "flop_rate", "bandwidth"),
    ("80 GB", "bandwidth", "bytes"), ("$2/h", "money", "price per hour"),
    ("700 W", "energy", "power"), ("5 parsec", "time", "unknown"), ("1,5 GB", "bytes", "unknown"),
    ("1,00 GB", "bytes", "unknown"), ("-1 GB", "bytes", "negative"), ("nan", "bytes", "number"),
    ("inf GB", "bytes", "number"), ("1e999 GB", "bytes", "finite"), ("", "bytes", "number"),
    (float("nan"), "time", "finite"), (float("inf"), "time", "finite"), (-1, "time", "negative"),
    (True, "count", "quantity"), (None, "count", "quantity"), ([1], "count", "quantity"),
]


@pytest.mark.parametrize(("value", "dimension", "part"), REFUSED)
def test_bad_quantities_get_one_clear_line(value: object, dimension: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as error:
        parse_quantity(value, dimension, where="memory.bandwidth")  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message and message.startswith("memory.bandwidth: ")


def test_mix_up_names_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"a bandwidth is needed; for example 3\.35 TB/s"):
        parse_quantity("3.35 TFLOP/s", "bandwidth")


def test_unknown_dimension_is_suggested() -> None:
    with pytest.raises(InputError, match="did you mean 'bandwidth'"):
        parse_quantity("1 GB/s", "bandwith")


# Magnitudes that people write: what is smaller than the smallest unit is printed as 0.
SIZES = st.floats(min_value=1e-3, max_value=1e17, allow_nan=False)


@given(value=SIZES, dimension=st.sampled_from(sorted(UNITS)))
def test_printed_quantity_reads_back(value: float, dimension: str) -> None:
    text = format_quantity(value, dimension, digits=6)
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-5)


@given(value=SIZES, dimension=st.sampled_from(sorted(UNITS)), data=st.data())
def test_number_with_any_unit_scales_by_its_factor(
    value: float, dimension: str, data: st.DataObject
) -> None:
    unit = data.draw(st.sampled_from(sorted(UNITS[dimension])))
    expected = value * UNITS[dimension][unit]
    assert parse_quantity(f"{value!r} {unit}", dimension) == pytest.approx(expected, rel=1e-12)


@given(text=st.text(max_size=30), dimension=st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_number_or_a_clear_error(text: str, dimension: str) -> None:
    try:
        value = parse_quantity(text, dimension)
    except InputError as error:
        assert str(error)
    else:
        assert math.isfinite(value) and value >= 0


@pytest.mark.parametrize(("value", "dimension", "text"), [
    (3.35e12, "bandwidth", "3.35 TB/s"), (989e12, "flop_rate", "989 TFLOP/s"),
    (2.1, "price_per_hour", "$2.1/h"), (0.05, "time", "50 ms"), (30000, "money", "$30,000"),
    (0.0, "bytes", "0 B"), (float("nan"), "time", "–"),
])
def test_printing(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text
