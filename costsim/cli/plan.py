"""``costsim plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import PositiveNumber, emit, output_options
from costsim.cli.plan_inputs import plan_inputs, terms_options, what_options


@click.command("plan")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@what_options
@terms_options
@click.option("--check/--no-check", default=True, show_default=True,
              help="Simulate the plan and repair it until targets hold.")
@click.option("--uncertainty", is_flag=True, help="Intervals, probability, what to measure next.")
@click.option("--draws", type=PositiveNumber(whole=True), default=4096, show_default=True,
              help="Draws of --uncertainty.")
@click.option("--vary", multiple=True, metavar="NAME=LOW..HIGH",
              help="Range of an input for --uncertainty, a factor on it: "
                   "'price of h100_sxm=0.8..1.2', 'traffic growth=1..1.5'.")
@click.option("--robust", type=click.FloatRange(0.5, 0.999),
              help="The cheapest plan that holds in this share of the draws, such as 0.95.")
@click.option("--seed", type=PositiveNumber(whole=True, zero=True), help="Of simulation and draws.")
@click.option("--workers", type=PositiveNumber(whole=True, zero=True), default=1,
              help="Processes for simulations; 0 for one a core.")
@click.option("--dask", default="", help="Dask scheduler, such as tcp://10.0.0.1:8786, or 'local'.")
@click.option("--study", type=click.Path(dir_okay=False, path_type=Path),
              help="SQLite file of simulations, so that an interrupted plan resumes.")
@output_options
def command(file: Path | None, as_json: bool, output: Path | None, **options: Any) -> None:
    """Say what to buy or rent, how to lay it out, what it costs, and how sure that is.

    \b
    Examples:
      costsim plan --model llama-3.1-70b --hardware h100_sxm,h200_sxm --rate 20 --ttft 2s --tpot 50ms
      costsim plan --model llama-3.1-8b --hardware l40s,h100_sxm:8 --users 10000 --ttft 1s --tpot 40ms
      costsim plan --model qwen3-32b --hardware h100_sxm --rate 8..14 --isl 800..1500 --uncertainty
      costsim plan plan.toml --robust 0.95 --output out/
    """  # noqa: E501
    from dataclasses import replace

    from costsim.planning.executor import make_executor
    from costsim.planning.plan import plan_demands, rechecked
    from costsim.planning.study import opened

    demands, models, hardware, settings = plan_inputs(file, options)
    say = None if as_json else _progress()
    executor = make_executor(options["dask"], options["workers"])
    try:
        with opened(options["study"]) as study:
            found = plan_demands(demands, models, hardware, settings, say, executor, study)
    finally:
        executor.close()
    if options["uncertainty"] or options["robust"]:
        from costsim.planning.uncertainty import robust_plan, study_plan

        if options["robust"]:
            found = robust_plan(found, models, options["robust"], draws=options["draws"],
                                progress=say)  # fmt: skip
            found = rechecked(found, say)
        found = replace(found, uncertainty=study_plan(found, draws=options["draws"],
                                                      seed=settings.seed))  # fmt: skip
    emit(found.as_dict(), lambda: _table(found), as_json, output, "plan")
    if output is not None:
        _write(found, output)


def _progress() -> Any:
    import sys

    if not sys.stderr.isatty():
        return None
    return lambda text: click.echo(f"… {text}", err=True)


def _table(found: Any) -> Any:
    from costsim.reports.tables_plan import plan_table

    return plan_table(found)


def _write(found: Any, folder: Path) -> None:
    """Write figures and the files that start the engines."""
    import io

    from costsim.files import write_atomically
    from costsim.planning.plan_json import pool_rows
    from costsim.reports.figures_plan import plan_figures

    for name, figure in plan_figures(found).items():
        for kind in ("png", "svg"):
            held = io.BytesIO()
            figure.savefig(held, format=kind, dpi=150)
            write_atomically(folder / f"{name}.{kind}", held.getvalue())
    for at, row in enumerate(pool_rows(found), start=1):
        write_atomically(folder / f"pool_{at}.yaml", row["kubernetes"])
        write_atomically(folder / f"pool_{at}.sh", row["script"])
