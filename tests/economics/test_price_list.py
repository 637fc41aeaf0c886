"""The price list: quotes by provider and region, a user's own tables, purchase against profile."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

import costsim
from costsim.cli import cli
from costsim.economics.api import api_prices
from costsim.economics.prices import CURRENT_DAYS, TIERS, quotes_of, rent, tier_of
from costsim.economics.purchases import purchases
from costsim.economics.tables import TABLES, shipped_path
from costsim.errors import InputError
from costsim.hardware.loader import list_hardware, load_hardware
from costsim.planning.price_list import price_list, price_sheet

TODAY = date(2026, 11, 25)


def test_every_price_has_a_date_and_a_source() -> None:
    for name in list_hardware():
        for quote in quotes_of(load_hardware(name)):
            assert quote.source and quote.date and float(quote.usd_per_hour) > 0, (name, quote)
    assert all(p.source and p.day < TODAY for p in (*purchases(), *api_prices()))
    named = {p.hardware for p in purchases()}
    assert named <= set(list_hardware())


def test_a_region_chooses_its_quotes() -> None:
    h100 = load_hardware("h100_sxm")
    europe = rent(h100, region="eu", today=TODAY)
    assert {q.provider for q in europe.quotes} >= {"Lambda", "Nebius"}
    assert all(q.region.startswith("eu") or q.region == "all" for q in europe.quotes)
    assert europe.central < rent(h100, provider="AWS", today=TODAY).central
    h200 = rent(load_hardware("h200_sxm"), "spot", region="europe-west1", today=TODAY)
    assert [q.provider for q in h200.quotes] == ["Google"]


def test_a_list_price_for_all_regions_replaces_older_regional_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices").mkdir()
    quotes = [("us-1", "2026-01-01", 2.0), ("all", "2026-06-01", 3.0), ("eu-1", "2026-07-01", 4.0)]
    text = "".join(f'[[quote]]\nhardware = "h100_sxm"\nprovider = "mine"\nregion = "{region}"\n'
                   f'date = "{day}"\nspot = {usd}\nsource = "offer"\n'
                   for region, day, usd in quotes)  # fmt: skip
    (tmp_path / "prices" / "rents.toml").write_text(text)
    price = rent(load_hardware("h100_sxm"), "spot", provider="mine", today=TODAY)
    assert {q.region for q in price.quotes} == {"all", "eu-1"} and price.central == 3.5
    here = rent(load_hardware("h100_sxm"), "spot", provider="mine", region="us", today=TODAY)
    assert {q.region for q in here.quotes} == {"all"} and here.central == 3.0


def test_kinds_of_providers_have_prices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h100 = load_hardware("h100_sxm")
    found = {tier: rent(h100, provider=tier, today=TODAY) for tier in TIERS}
    assert found["hyperscaler"].central > 1.5 * found["neocloud"].central
    assert found["neocloud"].central > found["marketplace"].central
    assert {tier_of(q.provider) for q in found["neocloud"].quotes} == {"neocloud"}
    assert found["hyperscaler"].note.count("hyperscalers alone") == 1
    row = price_list([h100], "on_demand")[0]
    assert row["neocloud_usd_per_hour"] == found["neocloud"].central
    assert row["low_usd_per_hour"] < row["central_usd_per_hour"] < row["high_usd_per_hour"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "providers.toml").write_text('hyperscaler = ["lambda"]\n')
    assert tier_of("Lambda") == "hyperscaler" and tier_of("AWS") == "neocloud"
    (tmp_path / "prices" / "providers.toml").write_text('hyperscalar = ["lambda"]\n')
    with pytest.raises(InputError, match="did you mean 'hyperscaler'"):
        tier_of("Lambda")


def test_a_provider_counts_once_with_its_newest_quote_of_each_region() -> None:
    h100 = load_hardware("h100_sxm")
    price = rent(h100, today=TODAY)
    keys = [(q.provider, q.region) for q in price.quotes]
    assert len(keys) == len(set(keys))
    runpod = [q for q in quotes_of(h100) if q.provider == "RunPod" and q.kind == "on_demand"]
    kept = [q for q in price.quotes if q.provider == "RunPod"]
    assert len(runpod) > 1 and [q.date for q in kept] == [max(q.date for q in runpod)]
    only = rent(h100, provider="RunPod", today=TODAY)
    assert only.low == only.central == only.high == kept[0].usd_per_hour
    assert CURRENT_DAYS > 365


def test_purchases_agree_with_the_list_prices_of_profiles() -> None:
    """The profile's accelerator and server lie within a third of what is asked for a server."""
    for name in ("h100_sxm", "h200_sxm", "b200_sxm"):
        kind = load_hardware(name)
        asked = [p.usd for p in purchases(name) if p.what == "server"]
        own = float(kind.list_price_usd) + float(kind.server_price_usd_per_accelerator)
        assert 0.67 * min(asked) <= own <= 1.33 * max(asked), (name, own, asked)


def test_a_sheet_adds_up() -> None:
    sheet = price_sheet(costsim.load_hardware("mi300x"), electricity="france", today=TODAY)
    owned = sheet["ownership"]
    assert sum(owned["parts_usd_per_hour"].values()) == pytest.approx(owned["usd_per_hour"])
    parts = ["accelerator", "server", "network", "facility", "energy", "maintenance", "staff"]
    assert list(owned["parts_usd_per_hour"]) == parts
    oracle = next(q for q in sheet["quotes"] if q["provider"] == "Oracle")
    assert oracle["region"] == "all" and oracle["usd_per_hour"] == 6.0
    with pytest.raises(InputError, match="providers: "):
        price_sheet(costsim.load_hardware("mi300x"), provider="Nobody")
    with pytest.raises(InputError, match="did you mean 'spot'"):
        price_list([costsim.load_hardware("mi300x")], "spt")


def test_a_users_table_adds_to_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices").mkdir()
    mine = tmp_path / "prices" / "rents.toml"
    quote = ('[[quote]]\nhardware = "h100_sxm"\nprovider = "mine"\nregion = "eu-home"\n'
             'date = "2026-11-01"\non_demand = 1.75\nsource = "contract 7"\n')  # fmt: skip
    shipped = len(quotes_of(load_hardware("h100_sxm")))
    mine.write_text('extends = "shipped"\n' + quote)
    assert len(quotes_of(load_hardware("h100_sxm"))) == shipped + 1
    assert rent(load_hardware("h100_sxm"), provider="mine").central == 1.75
    mine.write_text(quote)
    assert len(quotes_of(load_hardware("h100_sxm"))) < shipped
    mine.write_text('extends = "shiped"\n' + quote)
    with pytest.raises(InputError, match="must be 'shipped'"):
        quotes_of(load_hardware("h100_sxm"))
    place = tmp_path / "prices" / "electricity.toml"
    place.write_text('extends = "shipped"\n[region.us]\nusd_per_kwh = 0.05\n')
    from costsim.economics.energy import load_region

    assert load_region("us").usd_per_kwh == 0.05 and load_region("us").kg_co2_per_kwh > 0.3
    assert load_region("france").usd_per_kwh > 0.1


def test_the_command_lists_copies_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    listed = json.loads(run(cli, ["prices", "--term", "spot", "--json"]).output)
    assert {row["term"] for row in listed} == {"spot"} and len(listed) > 5
    shown = run(cli, ["prices", "h100_sxm", "--region", "eu"])
    assert shown.exit_code == 0 and "eu-fin-02" in shown.output and "STALE" in shown.output
    assert "deepseek-v4-pro" in run(cli, ["prices", "--api"]).output
    copied = run(cli, ["prices", "--copy"])
    assert copied.exit_code == 0
    for name in TABLES:
        path = tmp_path / "prices" / f"{name}.toml"
        assert path.read_text() == shipped_path(name).read_text()
    assert "kept" in run(cli, ["prices", "--copy"]).output
    wrong = run(cli, ["prices", "h100_sxm", "--provider", "Nobody"])
    assert isinstance(wrong.exception, InputError)
