"""``costsim explain``."""

from __future__ import annotations

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
    from costsim.engine.explain import Explanation


@click.command("explain")
@click.argument("model", shell_complete=complete_model)
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--batch", type=PositiveNumber(whole=True), default=32, show_default=True,
              help="Requests in flight in one replica.")
@click.option("--measured", type=PositiveNumber(), metavar="TOKENS/S",
              help="Output tokens per second that you measured on the whole replica.")
@request_options
@deployment_options
@change_option
@output_options
def command(
    model: str, hardware: str, batch: int, measured: float | None, isl: float, osl: float,
    precision: str | None, kv: str | None, engine: str, price: str, as_json: bool,
    output: Path | None, changes: tuple[str, ...], **options: Any,
) -> None:
    """Say how far an operating point lies from the machine's limit, why, and what would help.

    Example: costsim explain llama-3.1-70b h100_sxm --tp 4 --batch 64 --measured 1500
    """
    from costsim.economics.prices import rent
    from costsim.planning.explain import explain
    from costsim.planning.precision import precision_from

    found = explain(model, hardware, layout_from(options), batch=batch, isl=isl, osl=osl,
                    measured_output_tokens_per_s=measured, engine=engine,
                    precision=precision_from(model, precision, kv), changes=changes)
    from costsim.hardware.loader import load_hardware

    usd_per_hour = float(rent(load_hardware(hardware), price).central)
    emit(_data(found, usd_per_hour), lambda: _table(found), as_json, output, "explain")


def _data(e: Explanation, usd_per_hour: float) -> dict[str, Any]:
    return {
        "seconds_per_token": e.seconds_per_token, "predicted_s": e.predicted_s,
        "limit_s": e.limit_s, "distance": e.distance, "mfu": e.mfu, "mbu": e.mbu,
        "parts_s": dict(e.parts), "elasticities": {"hardware.price": 1.0, **e.elasticities},
        "log_error": e.log_error, "within_interval": e.within_interval,
        "usd_per_accelerator_hour": usd_per_hour,
    }


def _table(e: Explanation) -> Any:
    from rich.console import Group

    from costsim.reports.tables import plain_table
    from costsim.units import format_quantity

    rows = [[name, format_quantity(value, "time"), f"{100 * value / e.seconds_per_token:.1f} %"]
            for name, value in sorted(e.parts.items(), key=lambda kv: -abs(kv[1])) if value]
    moves = [["hardware.price", "+1.00 %"],
             *([name, f"{value:+.2f} %"] for name, value in list(e.elasticities.items())[:12])]
    d = e.point
    what = "Measured" if e.within_interval is not None else "Predicted"
    rate = format_quantity(1.0 / e.seconds_per_token, "count")
    lines = [f"{what}: {rate} output tokens/s of the replica at {float(d.batch):g} requests of "
             f"{float(d.isl):g} + {float(d.osl):g} tokens, "
             f"{format_quantity(e.seconds_per_token, 'time')} each. The machine's limit is "
             f"{format_quantity(e.limit_s, 'time')}, {e.distance:.2f} times faster. "
             f"MFU {100 * e.mfu:.1f} %, MBU {100 * e.mbu:.1f} %."]
    if e.within_interval is not None:
        verdict = "inside" if e.within_interval else "outside"
        lines.append(f"Predicted {format_quantity(e.predicted_s, 'time')}; the measurement lies "
                     f"{verdict} the prediction's 90 % interval.")
    return Group(*lines, plain_table("What it is made of", ("cause", "per token", "share"), rows),
                 plain_table("1 % more of … changes $ per query by", ("field", "change"), moves))
