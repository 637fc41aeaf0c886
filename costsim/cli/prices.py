"""``costsim prices``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import complete_hardware, emit, output_options


@click.command("prices")
@click.argument("hardware", nargs=-1, shell_complete=complete_hardware)
@click.option("--term", help="on_demand, spot, reserved_1y, reserved_3y or owned.")
@click.option("--provider", default="",
              help="Only quotes of this provider or kind: hyperscaler, neocloud, marketplace.")
@click.option("--region", default="", help="Only quotes of regions that begin so: eu.")
@click.option("--electricity", default="us", show_default=True,
              help="Region of the electricity of owned hardware.")
@click.option("--activity", type=click.FloatRange(0.0, 1.0), default=0.7, show_default=True,
              help="Share of the dynamic power that owned hardware draws.")
@click.option("--api", is_flag=True, help="Prices of hosted models over time, in place of rents.")
@click.option("--copy", is_flag=True,
              help="Write the shipped tables into the folder prices here, to edit.")
@output_options
def command(
    hardware: tuple[str, ...], term: str | None, provider: str, region: str, electricity: str,
    activity: float, api: bool, copy: bool, as_json: bool, output: Path | None,
) -> None:
    """Show what hardware costs: rents by provider, region and term, purchase, ownership, APIs.

    Every price is shown with its date and source; those older than 180 days are called stale.

    \b
    Examples:
      costsim prices
      costsim prices h100_sxm h200_sxm --region eu
      costsim prices --term on_demand --provider neocloud
      costsim prices mi300x --electricity germany
      costsim prices --api
      costsim prices --copy
    """
    if copy:
        return _copy()
    if api:
        from costsim.economics.api import api_prices
        from costsim.reports.tables_prices import api_table

        found = api_prices()
        rows = [vars(p) | {"day": p.day.isoformat(), "stale": p.stale()} for p in found]
        return emit(rows, lambda: api_table(found), as_json, output, "api_prices")
    from costsim.hardware.loader import list_hardware, load_hardware
    from costsim.planning.price_list import price_list, price_sheet
    from costsim.reports import tables_prices

    if not hardware:
        kinds = [load_hardware(name) for name in list_hardware()]
        listed = price_list(kinds, term, provider, region)
        return emit(listed, lambda: tables_prices.price_list_table(listed), as_json, output,
                    "prices")  # fmt: skip
    sheets: list[dict[str, Any]] = [
        price_sheet(load_hardware(name), term, provider, region, electricity, activity)
        for name in hardware
    ]
    emit(sheets, lambda: tables_prices.price_sheet_tables(sheets), as_json, output, "prices")


def _copy() -> None:
    """Write the shipped tables where they are looked up first; a file that is there stays."""
    from costsim.economics.tables import TABLES, shipped_path
    from costsim.files import write_atomically

    for name in TABLES:
        path = Path("prices") / f"{name}.toml"
        if path.exists():
            click.echo(f"kept: {path}")
            continue
        write_atomically(path, shipped_path(name).read_text(encoding="utf-8"))
        click.echo(f"written: {path}")
