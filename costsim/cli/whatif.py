"""``costsim whatif``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    change_option,
    complete_hardware,
    complete_model,
    deployment_options,
    emit,
    layout_from,
    output_options,
    request_options,
)

if TYPE_CHECKING:
    from costsim.planning.whatif import WhatIf


@click.command("whatif")
@click.argument("model", shell_complete=complete_model)
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--vary", "variations", multiple=True, required=True, metavar="FIELD=VALUES",
              help="Range low..high[:steps] or list a,b,c; an x after the numbers multiplies the "
                   "present value.")
@click.option("--batch", type=PositiveNumber(whole=True), default=32, show_default=True,
              help="Requests in flight in one replica.")
@request_options
@deployment_options
@change_option
@output_options
def command(
    model: str, hardware: str, variations: tuple[str, ...], batch: int, isl: float, osl: float,
    precision: str | None, kv: str | None, engine: str, price: str, as_json: bool,
    output: Path | None, changes: tuple[str, ...], **options: Any,
) -> None:
    """Vary a field of hardware, model, layout, engine or request and see what it does.

    Fields: hardware.hbm_bandwidth, hardware.peak, hardware.price, hardware.scale_up_bandwidth,
    model.experts, model.layers, tp, ep, batch, isl, osl, engine.chunk, precision.weights and more;
    an unknown one is answered with the nearest.

    Example: costsim whatif llama-3.1-70b h100_sxm --tp 4 --vary hardware.hbm_bandwidth=0.5x..2x
    """
    from costsim.planning.estimate import make_deployment
    from costsim.planning.precision import precision_from
    from costsim.planning.whatif import parse_variation, whatif

    parsed = [parse_variation(text) for text in variations]
    deployment = make_deployment(model, hardware, layout_from(options),
                                 precision=precision_from(model, precision, kv), engine=engine,
                                 batch=batch, context=isl + osl, changes=changes)
    for i, variation in enumerate(parsed):
        found = whatif(deployment, variation, batch=batch, isl=isl, osl=osl, price=price)
        name = f"whatif_{variation.part}_{variation.field}" if i or len(parsed) > 1 else "whatif"
        emit(found.as_dict(), partial(_table, found), as_json, output, name)
        if output is not None:
            from costsim.reports.figures_whatif import draw_whatif

            paths = draw_whatif(found, output, name)
            click.echo(f"figures: {', '.join(str(p) for p in paths)}", err=as_json)


def _table(found: WhatIf) -> Any:
    from costsim.reports.tables import plain_table, shown

    rows = []
    for outcome in found.outcomes:
        e = outcome.estimate
        if e is None:
            rows.append([outcome.label, outcome.reason, *[""] * 5])
            continue
        ratio = float(e.usd_per_query) / float(found.base.usd_per_query)
        rows.append([outcome.label, shown(e.ttft_s), shown(e.tpot_s),
                     shown(e.output_tokens_per_s_per_accelerator), e.bottleneck,
                     shown(e.usd_per_query), f"{ratio:.2f}x"])
    d = found.base.deployment
    title = f"{found.variation.text} · {d.model.title} on {int(d.accelerators)}x " \
            f"{d.hardware.name} ({d.layout}), batch {found.base.batch}"
    columns = (f"{found.variation.part}.{found.variation.field}", "TTFT", "TPOT", "tok/s/accel",
               "bottleneck", "$/query", "to now")
    return plain_table(title, columns, rows)
