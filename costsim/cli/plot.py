"""``costsim plot``."""

from __future__ import annotations

from pathlib import Path

import click

from costsim.cli.options import complete_scenario, dump


@click.command("plot")
@click.argument("scenario", shell_complete=complete_scenario)
@click.option("--figure", "names", multiple=True, help="Only these figures; default: all.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path),
              help="Folder; default: out/SCENARIO.")
@click.option("--json", "as_json", is_flag=True, help="Print the files' names as JSON.")
def command(scenario: str, names: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Draw figures of a scenario, and nothing else.

    Example: costsim plot arrakis --figure cost_against_load
    """
    from costsim.cli.run import progress_bar
    from costsim.errors import unknown_name
    from costsim.planning.run import run_scenario
    from costsim.planning.scenario import load_scenario
    from costsim.reports.figures import FIGURES

    for name in names:
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
    folder = output or Path("out") / Path(scenario).stem
    loaded = load_scenario(scenario)
    with progress_bar(as_json) as say:
        result = run_scenario(loaded, say)
    files = [str(path) for name in names or FIGURES for path in FIGURES[name](result, folder)]
    click.echo(dump(files) if as_json else "\n".join(files))
