"""``costsim validate all`` and ``costsim validate published``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import emit, output_options

DATA = Path("../shared/data")
ENGINE = Path("benchmarks/engine.json")
NAMES = ("engine", "kernels", "silicon", "published", "published_csv", "public", "serving",
         "training")


@click.command("all")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), default=DATA,
              show_default=True, help="Folder with measured data: kernels, serving, published.")
@click.option("--engine", type=click.Path(dir_okay=False, path_type=Path), default=ENGINE,
              show_default=True, help="Result of 'costsim validate engine --output FOLDER'.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Some comparisons only.")
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the figures as Markdown, such as docs/accuracy.md.")
@output_options
def everything(
    data: Path, engine: Path, only: tuple[str, ...], write: Path | None, as_json: bool,
    output: Path | None,
) -> None:
    """Run every comparison and write one page with every point.

    Comparisons whose data or extra are absent are skipped, with the reason.

    Example: costsim validate all --output out/accuracy
    """
    from costsim.cli.run import progress_bar
    from costsim.files import write_atomically
    from costsim.reports.accuracy import data_of, write_report
    from costsim.reports.accuracy_markdown import markdown
    from costsim.reports.accuracy_tables import accuracy_table
    from costsim.validation.comparisons import Where, compare_all

    with progress_bar(as_json) as say:
        found = compare_all(Where(data if data.is_dir() else None, engine), only, say)
    emit(data_of(found), lambda: accuracy_table(found), as_json, None, "accuracy")
    if write is not None:
        click.echo(f"written: {write_atomically(write, markdown(found))}", err=True)
    if output is not None:
        for path in write_report(found, output):
            click.echo(f"written: {path}", err=True)


@click.command("published")
@click.option("--points", type=click.Path(dir_okay=False, path_type=Path),
              help="A collected table of published points (CSV); default: the project's own.")
@click.option("--calibration", type=click.Choice(("kernels", "roofline", "engine")), multiple=True,
              help="What predictions rest on: the kernels' calibration alone, none, or the "
                   "engine's fitted figures too; default: all three, the first for the points.")
@output_options
def published(
    points: Path | None, calibration: tuple[str, ...], as_json: bool, output: Path | None
) -> None:
    """Compare with published results: vendors' tables, MLPerf, papers.

    Example: costsim validate published --output out/published
    """
    from dataclasses import replace

    from costsim.cli.run import progress_bar
    from costsim.reports.accuracy import data_of, write_report
    from costsim.reports.accuracy_tables import comparison_table
    from costsim.validation.published import comparison
    from costsim.validation.published_csv import read_published

    modes = calibration or ("kernels", "roofline", "engine")
    rows, left = (None, {}) if points is None else read_published(points)
    with progress_bar(as_json) as say:
        found = comparison(rows, modes=modes,
                           progress=lambda done, total: say(done, total, "published results"))
    found = replace(found, left_out={**found.left_out, **left})
    data: Any = data_of([found])
    emit(data["published"], lambda: comparison_table(found), as_json, None, "published")
    if output is not None:
        for path in write_report([found], output):
            click.echo(f"written: {path}", err=True)


@click.command("public")
@output_options
def public(as_json: bool, output: Path | None) -> None:
    """Compare with runs of serving benchmarks in public repositories, as a user would his own.

    Example: costsim validate public --output out/public
    """
    from costsim.cli.run import progress_bar
    from costsim.reports.accuracy import data_of, write_report
    from costsim.reports.accuracy_tables import comparison_table
    from costsim.validation.public_runs import comparison

    with progress_bar(as_json) as say:
        found = comparison(lambda done, total: say(done, total, "public runs"))
    emit(data_of([found])["public"], lambda: comparison_table(found), as_json, None, "public")
    if output is not None:
        for path in write_report([found], output):
            click.echo(f"written: {path}", err=True)
