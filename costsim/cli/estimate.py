"""``costsim estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import (
    PositiveNumber,
    Seconds,
    change_option,
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
@click.option("--images", metavar="[COUNTx]HEIGHTxWIDTH",
              help="Images of each request in pixels, such as 2x1024x768.")
@click.option("--audio", type=Seconds(), default=0.0, help="Audio of each request, such as 30s.")
@request_options
@deployment_options
@change_option
@output_options
def command(
    model: str, hardware: str, batch: int, isl: float, osl: float, precision: str | None,
    kv: str | None, engine: str, price: str, as_json: bool, output: Path | None,
    changes: tuple[str, ...], images: str | None, audio: float, **options: Any,
) -> None:
    """Say latency, throughput and cost of one operating point.

    Examples:

    \b
    costsim estimate llama-3.1-70b h100_sxm --tp 4 --batch 32 --isl 2048 --osl 512
    costsim estimate deepseek-v3 h200_sxm --tp 8 --ep 8 --set engine.speculation=mtp:1:0.8
    costsim estimate qwen3-vl-8b h100_sxm --images 2x1024x768
    """
    from costsim.models.multimodal import images_from
    from costsim.planning.estimate import estimate
    from costsim.planning.precision import precision_from
    from costsim.reports.tables_estimate import estimate_table

    found = estimate(model, hardware, layout_from(options), batch=batch, isl=isl, osl=osl,
                     precision=precision_from(model, precision, kv), engine=engine, price=price,
                     changes=changes, images=images_from(images), audio_s=audio)
    extra = found.isl - isl
    data = found.as_dict() | ({"image_and_audio_tokens": extra} if extra else {})
    emit(data, lambda: _table(estimate_table([found]), isl, extra), as_json, output, "estimate")


def _table(table: Any, isl: float, extra: float) -> Any:
    if not extra:
        return table
    from rich.console import Group

    return Group(table, f"prompt: {isl:,.0f} tokens of text and {extra:,.0f} of images and audio, "
                        "whose encoder is part of TTFT")
