"""Rents: median and range of current quotes, age, overrides; bad names and bad data."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from costsim.economics.prices import Rent, quotes_of, rent, terms_of
from costsim.economics.tables import TABLES, read_table
from costsim.errors import InputError
from costsim.hardware import Hardware, Price

TODAY = date(2026, 6, 1)


def test_rent_is_the_median_and_the_range_of_current_quotes(accelerator: Hardware) -> None:
    low, central, high = rent(accelerator, "on_demand", today=TODAY)
    assert (low, central, high) == (2.0, 3.0, 4.0)  # that of 2023 is too old to count


def test_a_price_older_than_180_days_is_said_to_be_stale(accelerator: Hardware) -> None:
    fresh = rent(accelerator, today=date(2026, 5, 18 + 13))
    old = rent(accelerator, today=date(2026, 11, 15))
    assert not fresh.stale and "STALE" not in fresh.note
    assert old.age_days == 181 and old.stale and "STALE: 181 days" in old.note


def test_provider_and_region_choose_among_quotes(accelerator: Hardware) -> None:
    assert rent(accelerator, provider="a").central == 3.0
    assert rent(accelerator, region="EU").central == 4.0
    with pytest.raises(InputError, match=r"no price for term on_demand, provider x; quotes exist"):
        rent(accelerator, provider="x")


def test_unknown_and_missing_terms_are_errors(accelerator: Hardware) -> None:
    with pytest.raises(InputError, match="did you mean 'spot'"):
        rent(accelerator, "spott")
    with pytest.raises(InputError, match="quotes exist for on_demand, reserved_1y"):
        rent(accelerator, "spot")
    assert terms_of(accelerator) == ["on_demand", "reserved_1y"]


def test_arrays_of_prices_broadcast(accelerator: Hardware) -> None:
    prices = (Price("on_demand", np.array([1.0, 2.0]), "2026-05-01", "a"),
              Price("on_demand", 3.0, "2026-05-01", "b"))  # fmt: skip
    found = rent(replace(accelerator, prices=prices), today=TODAY)
    assert found.low.tolist() == [1.0, 2.0] and found.central.tolist() == [2.0, 2.5]
    assert found.high.tolist() == [3.0, 3.0]


def test_log_error_makes_the_range_the_90_percent_interval() -> None:
    found = Rent(1.0, 2.0, 8.0, "on_demand", (), "2026-05-01", 1)
    below, above = found.log_error
    assert 2.0 * np.exp(-1.6448536 * below) == pytest.approx(1.0)
    assert 2.0 * np.exp(1.6448536 * above) == pytest.approx(8.0)


def test_a_users_table_replaces_the_shipped_one(
    accelerator: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices").mkdir()
    file = tmp_path / "prices" / "rents.toml"
    row = '[[quote]]\nhardware="test_accelerator"\ndate="2026-05-20"\nspot=0.7\nsource="quote 7"\n'
    file.write_text(row)
    assert rent(accelerator, "spot", today=TODAY).central == 0.7
    file.write_text(row.replace("spot", "spto"))
    with pytest.raises(InputError, match=r"rents\.toml 'spto'; did you mean 'spot'"):
        rent(accelerator, "spot")
    file.write_text(row.replace("0.7", "-1"))
    with pytest.raises(InputError, match="finite and not negative"):
        quotes_of(accelerator)


@pytest.mark.parametrize("name", TABLES)
def test_every_shipped_figure_has_a_source(name: str) -> None:
    def check(node: object, path: str) -> None:
        if isinstance(node, dict):
            if "value" in node or ("date" in node and len(node) > 3):
                assert str(node.get("source", "")).strip(), f"{name}: {path} has no source"
            for key, value in node.items():
                check(value, f"{path}.{key}")
        elif isinstance(node, list):
            for at, value in enumerate(node):
                check(value, f"{path}[{at}]")

    check(read_table(name), name)
