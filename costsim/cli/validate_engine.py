"""``costsim validate engine``."""

from __future__ import annotations

from pathlib import Path

import click

from costsim.cli.options import PositiveNumber, output_options


@click.command("engine")
@click.option("--quick/--full", default=True, show_default=True,
              help="A few minutes; or models up to a billion parameters, more steps and a finer "
                   "grid of kernels (under an hour).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
              help="On a GPU steps and kernels are timed inside captured CUDA graphs.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]),
              help="Of weights, activations and cache; default: fp32 on the CPU, bf16 on a GPU.")
@click.option("--threads", type=PositiveNumber(whole=True), default=1, show_default=True,
              help="One thread is timed by its own processor time, several by the clock.")
@click.option("--experts", type=click.Choice(["grouped_mm", "eager"]), default="grouped_mm",
              show_default=True, help="How transformers runs the experts.")
@click.option("--only", multiple=True, metavar="MODEL", help="Only these models (and their "
              "dense pairs), such as llama-28m.")
@click.option("--no-resume", is_flag=True, help="Do not go on with an interrupted run.")
@output_options
def command(
    quick: bool, device: str, dtype: str | None, threads: int, experts: str,
    only: tuple[str, ...], no_resume: bool, as_json: bool, output: Path | None,
) -> None:
    """Time real models here (random weights, extra 'measure') and compare.

    Kernels are timed on their own, between the models; the models' steps are predicted from them.
    An interrupted run goes on where it stopped. 'costsim validate all --engine
    out/engine/engine.json' puts the result on the page of all comparisons.

    Example: costsim validate engine --quick --output out/engine
    """
    from costsim.cli.options import emit
    from costsim.cli.run import progress_bar
    from costsim.reports.validation_engine import draw_engine, engine_table
    from costsim.validation.engine import validate_engine

    with progress_bar(as_json) as say:
        found = validate_engine(quick, device, dtype or "", threads, experts, say,
                                not no_resume, only)
    data = found.as_dict()
    emit(data, lambda: engine_table(data), as_json, output, "engine")
    if output is not None:
        paths = draw_engine(data, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)
