"""``costsim run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costsim.cli.options import complete_scenario, dump

if TYPE_CHECKING:
    from costsim.planning.results import ScenarioResult
    from costsim.planning.scenario import Scenario


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a progress callback that draws a bar on the terminal's error stream."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(TextColumn("{task.description:<44}"), BarColumn(),
                   TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(),
                   console=console, transient=True, disable=quiet or not console.is_terminal)
    with bar:
        task = bar.add_task("starting", total=None)

        def say(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what[:44])

        yield say


@click.command("run")
@click.argument("scenarios", nargs=-1, required=True, shell_complete=complete_scenario)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for results; default: out/SCENARIO.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--no-figures", is_flag=True, help="Tables and data only.")
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write a Markdown page for each scenario into.")
def command(scenarios: tuple[str, ...], output: Path | None, as_json: bool, no_figures: bool,
            pages: Path | None) -> None:
    """Run scenarios: tables here; figures, data and an HTML report in a folder.

    SCENARIOS are names (see: costsim scenario list) or TOML files; "all" runs every one, with one
    combined report.

    Example: costsim run scenarios/arrakis.toml
    """
    from costsim.planning.scenario import list_scenarios, load_scenario

    names = list_scenarios() if scenarios == ("all",) else list(scenarios)
    # All are read before the first runs: a mistake in the last costs no time.
    loaded = [(name, load_scenario(name)) for name in names]
    reports = []
    for name, scenario in loaded:
        folder = _folder(output, name, len(names) > 1)
        reports.append((name, run_one(scenario, folder, as_json, not no_figures)))
    if len(names) > 1:
        from costsim.reports.combined import write_combined

        path = write_combined([r for _, r in reports], output or Path("out"))
        click.echo(f"combined report: {path}", err=as_json)
    if pages is not None:
        from costsim.reports.pages import write_index, write_page

        for name, result in reports:
            write_page(result, _folder(output, name, len(names) > 1), pages)
        click.echo(f"pages: {write_index([r for _, r in reports], pages).parent}", err=as_json)


def _folder(output: Path | None, name: str, many: bool) -> Path:
    stem = Path(name).stem
    if output is None:
        return Path("out") / stem
    return output / stem if many else output


def run_one(
    scenario: Scenario, folder: Path, as_json: bool, figures: bool
) -> ScenarioResult:
    """Run one scenario, print and write its results."""
    from costsim.planning.run import run_scenario
    from costsim.reports.figures import FIGURES, draw_all
    from costsim.reports.scenario import as_data, scenario_tables, write_data, write_report
    from costsim.reports.tables import console

    with progress_bar(as_json) as say:
        result = run_scenario(scenario, say)
        drawn = []
        if figures:
            steps = iter(range(len(FIGURES)))
            drawn = draw_all(result, folder, lambda f: say(next(steps), len(FIGURES), f))
    written = write_data(result, folder, dump)
    if figures:
        written.append(write_report(result, folder, drawn))
    if as_json:
        click.echo(dump(as_data(result)))
        return result
    console().print(scenario_tables(result))
    click.echo(f"\n{result.points:,} operating points priced; {len(drawn)} figures, "
               f"{', '.join(p.name for p in written)} in {folder}/")
    return result
