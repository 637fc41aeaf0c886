"""``costsim validate training``."""

from __future__ import annotations

from pathlib import Path

import click

from costsim.cli.options import emit, output_options


@click.command("training")
@click.option("--most", type=click.FloatRange(0, 10), default=0.15, show_default=True,
              help="Median error above which the exit code is 1.")
@output_options
@click.pass_context
def training(ctx: click.Context, most: float, as_json: bool, output: Path | None) -> None:
    """Compare training with published runs: hours, steps, MFU, tokens a second, with sources.

    Runs whose layout is not published are kept apart, and so are those that the unexplained
    share is fitted to.

    Example: costsim validate training --output out/training
    """
    from costsim.cli.run import progress_bar
    from costsim.reports.tables_training import published_data, published_table
    from costsim.training.published import published_runs

    with progress_bar(as_json) as say:
        runs = published_runs(progress=lambda done, total: say(done, total, "training runs"))
    data = published_data(runs)
    emit(data, lambda: published_table(data), as_json, output, "training")
    if output is not None:
        from costsim.reports.figures_training import draw_published

        paths = draw_published(data, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)
    if data["median_error"] > most:
        click.echo(f"costsim: median error {data['median_error']:.3f} is above {most}", err=True)
        ctx.exit(1)
