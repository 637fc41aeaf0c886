"""``costsim estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import (
    PositiveNumber,
    complete_hardware,
    complete_model,
    deployment_options,
    emit,
    layout_from,
    output_options,
    request_options,
)


@click.command("estimate")
@click.argument("model", shell_complete=complete_model)
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--batch", type=PositiveNumber(whole=True), default=32, show_default=True,
              help="Requests in flight in one replica.")
@request_options
@deployment_options
@output_options
def command(
    model: str, hardware: str, batch: int, isl: float, osl: float, precision: str | None,
    kv: str | None, engine: str, price: str, as_json: bool, output: Path | None, **options: Any,
) -> None:
    """Say latency, throughput and cost of one operating point.

    Example: costsim estimate llama-3.1-70b h100_sxm --tp 4 --batch 32 --isl 2048 --osl 512
    """
    from costsim.planning.estimate import estimate
    from costsim.planning.precision import precision_from
    from costsim.reports.tables_estimate import estimate_table

    found = estimate(model, hardware, layout_from(options), batch=batch, isl=isl, osl=osl,
                     precision=precision_from(model, precision, kv), engine=engine, price=price)
    emit(found.as_dict(), lambda: estimate_table([found]), as_json, output, "estimate")
