"""``costsim calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    change_option,
    complete_hardware,
    complete_model,
    dump,
    layout_options,
)
from costsim.cli.validate_benchmark import is_benchmark, refit_files, replica_option
from costsim.errors import InputError

if TYPE_CHECKING:
    from costsim.kernels.calibrate import CalibrationResult


@click.command("calibrate")
@click.argument("more", metavar="[FILE]...", nargs=-1)
@click.option("--device", type=click.Choice(["local"]), default="local", show_default=True,
              help="What to measure.")
@click.option("--backend", type=click.Choice(["auto", "numpy", "torch", "cuda"]), default="auto",
              show_default=True, help="What runs the kernels.")
@click.option("--quick/--full", default=True, show_default=True,
              help="Under a minute, or the full grid (up to half an hour).")
@click.option("--from", "sources", metavar="FILE|DIR|silicon", multiple=True,
              help="Fit these measurements and measure nothing: a kernel table, or results (JSON) "
                   "of a serving benchmark, of which several may follow.")
@click.option("--system", "systems", multiple=True,
              help="With --from silicon: only these systems, such as h100_sxm. With --from and a "
                   "checkout of AITER: build the calibration that ships, mi300x or mi355x.")
@click.option("--hardware", shell_complete=complete_hardware,
              help="With --from: the accelerator that was measured.")
@click.option("--model", shell_complete=complete_model,
              help="With --from: the model that was profiled or served.")
@replica_option
@change_option
@layout_options
@click.option("--threads", type=PositiveNumber(whole=True),
              help="Threads that work; default: all cores, or one on a busy machine.")
@click.option("--name", help="Name to save under; default: 'local', or that of the engine and the "
                             "file of a benchmark.")
@click.option("--no-resume", is_flag=True, help="Do not go on with an interrupted run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the table, the calibration and a figure for each operator.")
def command(
    more: tuple[str, ...], sources: tuple[str, ...], as_json: bool, output: Path | None,
    **options: Any,
) -> None:
    """Measure the kernels of this machine, fit them, and save the result as a profile.

    The profile is found by its name: costsim estimate qwen3-0.6b local

    With results of a serving benchmark the engine's host overhead and efficiency are fitted to
    half of its runs, shown before and after on the others, and saved as an engine:
    costsim calibrate --from mine.json --model llama-3.1-8b --hardware h100_sxm --name mine

    Example: costsim calibrate --quick --output out/calibrate
    """
    if more and not sources:
        raise InputError(f"{more[0]}: files that are to be fitted come after --from")
    sources += more
    if is_benchmark(sources):
        names = ("tp", "pp", "ep", "dp", "cp", "precision", "kv", "engine", "changes")
        layout = {name: options[name] for name in names}
        refit_files(sources, options["model"], options["hardware"], options["name"] or "",
                    options["replicas"], layout, as_json, output)
        return
    if len(sources) > 1:
        raise InputError("--from: several files only of serving benchmarks (JSON, logs)")
    source = sources[0] if sources else None
    if source == "silicon" or (source and options["systems"]):
        _shipped(source, options["systems"], output, as_json)
        return
    result = _calibrated(source, as_json, output, options)
    if output is not None:
        from costsim.reports.figures_calibration import draw_calibration

        result.files.extend(draw_calibration(result, output))
    _print(result, as_json)


def _calibrated(
    source: str | None, quiet: bool, output: Path | None, options: dict[str, Any]
) -> CalibrationResult:
    from costsim.cli.run import progress_bar
    from costsim.kernels.calibrate import calibrate

    model = options["model"]
    if model is not None:
        from costsim.models.loader import load_model

        model = load_model(model)
    with progress_bar(quiet) as say:
        return calibrate(
            options["device"], options["backend"], options["quick"], source, output,
            options["name"] or "local", say, hardware=options["hardware"], model=model,
            tp=options["tp"] or 1,
            resume=not options["no_resume"], threads=options["threads"])


def _print(result: CalibrationResult, as_json: bool) -> None:
    if as_json:
        click.echo(dump(result.as_dict()))
        return
    from costsim.reports.tables import console
    from costsim.reports.tables_calibration import fit_table

    console().print(fit_table(result))
    shown = [f for f in result.files if f.suffix != ".svg"]
    click.echo("written: " + ", ".join(str(f) for f in shown))


def _shipped(
    source: str, systems: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """Build calibrations that ship: from the silicon tables, or from a checkout of AITER."""
    from costsim import library
    from costsim.cli.run import progress_bar
    from costsim.kernels import build_aiter, build_silicon

    folder = output or library.user_home() / "hardware_profiles" / "calibrations"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with progress_bar(as_json) as say:
        for system in systems or build_silicon.SYSTEMS:
            def tell(what: str, done: int, total: int, system: str = system) -> None:
                say(done, total, f"{system}: {what}")

            result = (build_silicon.build(system, folder, tell) if source == "silicon"
                      else build_aiter.build(system, Path(source), folder, tell))
            found.append({"system": system, "name": result.name, "kernels": len(result.surfaces),
                          "rows": sum(s.rows for s in result.surfaces.values()),
                          "file": str(folder / f"{result.name}.json")})
    if as_json:
        click.echo(dump(found))
        return
    for row in found:
        click.echo(f"{row['name']}: {row['kernels']} kernels of {row['rows']} rows: {row['file']}")
