"""``costsim validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import complete_hardware, emit, output_options
from costsim.cli.validate_all import everything, public, published
from costsim.cli.validate_benchmark import SUFFIXES
from costsim.cli.validate_benchmark import command as benchmark
from costsim.cli.validate_engine import command as engine
from costsim.cli.validate_training import training


class _FilesToo(click.Group):
    """A group that takes results of a benchmark in place of a command's name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put the command before files that stand without one."""
        if args and args[0] not in self.commands and Path(args[0]).suffix in SUFFIXES:
            args = ["benchmark", *args]
        return super().resolve_command(ctx, args)


@click.group("validate", cls=_FilesToo, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Compare predictions with measurements: kernels, engine, servers, published points, your own.

    Without a subcommand every comparison runs (``costsim validate all``); a result file of a
    serving benchmark may stand in its place:
    costsim validate mine.json --model llama-3.1-8b --hardware h100_sxm

    Example: costsim validate silicon --output out/validation
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(everything)


command.add_command(engine)
command.add_command(benchmark)


@command.command("kernels")
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--table", type=click.Path(path_type=Path), help="Kernel table (CSV), or a Vidur or "
              "LLMServingSim file; default: the extra 'silicon'.")
@output_options
def kernels(hardware: str, table: Path | None, as_json: bool, output: Path | None) -> None:
    """Compare any kernel table with a calibration: error by operator, and a scatter plot.

    A table of --table that is off by half or more throughout was not measured on this hardware, or
    not at its rate: that is said, and the exit code is 1.

    Example: costsim validate kernels h100_sxm --output out/kernels
    """
    from costsim.hardware.loader import load_hardware
    from costsim.reports.validation import draw_kernels, kernel_rows, kernels_table
    from costsim.validation.tables import kernel_errors

    found = kernel_errors(load_hardware(hardware), table)
    rows = kernel_rows(found)
    emit({"hardware": hardware, "kernels": rows}, lambda: kernels_table(hardware, rows), as_json,
         output, "kernels")
    if output is not None:
        paths = draw_kernels(found, hardware, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)
    suspicions = [e.suspicion for e in found if e.suspicion] if table is not None else []
    for suspicion in suspicions:
        click.echo(f"costsim: {suspicion}", err=True)
    if suspicions:
        raise SystemExit(1)


@command.command("silicon")
@click.option("--points", type=click.Path(path_type=Path), help="silicon_sample.csv; default: that "
              "of the installed package aiconfigurator-core.")
@click.option("--refit", is_flag=True, help="Fit the engines' figures to the even rows first, and "
              "print them.")
@output_options
def silicon(points: Path | None, refit: bool, as_json: bool, output: Path | None) -> None:
    """Compare with 5,221 measured serving points; only rows never fitted on are reported.

    Example: costsim validate silicon --output out/silicon
    """
    from costsim.cli.run import progress_bar
    from costsim.reports.validation import draw_silicon, silicon_data, silicon_table
    from costsim.validation.silicon import default_settings, predict, with_figures
    from costsim.validation.silicon_fit import fit
    from costsim.validation.silicon_points import read_points, sample_path

    rows, left = read_points(points or sample_path())
    settings: Any = default_settings()
    figures = {}
    with progress_bar(as_json) as say:
        if refit:
            figures = fit(rows, settings, lambda engine: say(0, 1, f"fitting {engine}"))
            settings = with_figures(settings, figures)
        odd = [p for p in rows if not p.fit]
        found, missed = predict(odd, settings, lambda done, total: say(done, total, "predicting"))
    missed = [*missed, *(m for m in left if not m.fit)]
    data = silicon_data(found, missed, figures)
    emit(data, lambda: silicon_table(data), as_json, output, "silicon")
    if output is not None:
        paths = draw_silicon(found, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


@command.command("serving")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_options
def serving(folders: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Replay real vLLM runs from their kernel profiles (LLMServingSim's folders).

    Example: costsim validate serving ../shared/data/serving/rtxpro6000-Llama-3.1-8B
    """
    from costsim.reports.validation import serving_table
    from costsim.validation.serving import replay

    data = {folder.name: replay(folder).rows() for folder in folders}
    emit(data, lambda: serving_table(data), as_json, output, "serving")


command.add_command(everything)
command.add_command(published)
command.add_command(public)
command.add_command(training)
