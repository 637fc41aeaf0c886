"""``costsim plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import (
    PositiveNumber,
    complete_hardware,
    complete_model,
    emit,
    output_options,
    request_options,
    target_options,
)

_TERMS = ("on_demand", "spot", "reserved_1y", "reserved_3y", "owned")


@click.command("plan")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--model", shell_complete=complete_model, help="Model, in place of a file.")
@click.option("--hardware", shell_complete=complete_hardware,
              help="Candidates, such as h100_sxm,h200_sxm; 'h100_sxm:16' limits the chips.")
@click.option("--rate", help="Requests per second, or 24 or 168 of them by hour: 10,12,…")
@click.option("--trace", type=click.Path(path_type=Path), help="Trace, in place of a rate.")
@request_options
@target_options
@click.option("--p99/--mean", "tails", default=True, show_default=True,
              help="Targets hold for 99 % of requests, or for the mean.")
@click.option("--terms", default="on_demand,reserved_1y,reserved_3y", show_default=True,
              help=f"Of {', '.join(_TERMS)}.")
@click.option("--spare", type=PositiveNumber(whole=True, zero=True),
              help="Replicas of each pool that may fail (N+1: 1).")
@click.option("--zones", type=PositiveNumber(whole=True), help="One zone of so many may be lost.")
@click.option("--budget", type=PositiveNumber(), help="$ a month, at most.")
@click.option("--power", type=PositiveNumber(), help="W of IT power, at most.")
@click.option("--check/--no-check", default=True, show_default=True,
              help="Simulate the plan and repair it until targets hold.")
@click.option("--uncertainty", is_flag=True, help="Intervals, probability, what to measure next.")
@click.option("--draws", type=PositiveNumber(whole=True), default=4096, show_default=True,
              help="Draws of --uncertainty.")
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
      costsim plan plan.toml --uncertainty --output out/
    """  # noqa: E501
    from dataclasses import replace

    from costsim.planning.executor import make_executor
    from costsim.planning.plan import plan_demands, rechecked
    from costsim.planning.study import opened

    demands, models, hardware, settings = _inputs(file, options)
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


def _inputs(file: Path | None, options: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return demands, models, hardware and options of a file or of the options."""
    from dataclasses import replace

    from costsim.errors import InputError
    from costsim.models.loader import load_model

    if (file is None) == (options["model"] is None):
        raise InputError("plan: give a file, or --model with --hardware and --rate")
    if file is not None:
        from costsim.library import find
        from costsim.planning.plan import load_plan

        demands, hardware, settings = load_plan(find("plans", str(file)))
    else:
        demands, hardware, settings = _from_options(options)
    changes = {k: options[v] for k, v in (
        ("spare", "spare"), ("zones", "zones"), ("budget_usd_per_month", "budget"),
        ("power_cap_w", "power"), ("seed", "seed")) if options[v] is not None}  # fmt: skip
    settings = replace(settings, check=options["check"], **changes)
    return demands, {d.model: load_model(d.model) for d in demands}, hardware, settings


def _from_options(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    import math

    from costsim.errors import InputError
    from costsim.hardware.loader import load_hardware
    from costsim.planning.plan_options import PlanOptions
    from costsim.planning.targets import Target
    from costsim.planning.workload import demand_of

    if not options["hardware"]:
        raise InputError("plan: --hardware is needed, such as --hardware h100_sxm,h200_sxm")
    if (options["rate"] is None) == (options["trace"] is None):
        raise InputError("plan: give --rate or --trace")
    pairs = [item.partition(":") for item in options["hardware"].split(",")]
    limits = {name: _number(limit, "--hardware limit") for name, _, limit in pairs if limit}
    kind = "_p99_s" if options["tails"] else "_s"
    target = Target(**{f"{n}{kind}": options[n] or math.inf for n in ("ttft", "tpot")})
    traffic = options["trace"] or [_number(r, "--rate") for r in options["rate"].split(",")]
    demand = demand_of(traffic, options["model"], target=target, isl=options["isl"],
                       osl=options["osl"])  # fmt: skip
    settings = PlanOptions(terms=tuple(options["terms"].split(",")), limits=limits)
    return [demand], [load_hardware(name) for name, _, _ in pairs], settings


def _number(text: str, what: str) -> float:
    from costsim.errors import InputError

    try:
        return float(text)
    except ValueError:
        raise InputError(f"plan: {what} '{text}': must be a number") from None


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
        lines = [f"# {engine}\n{line}" for engine, line in row["commands"].items()]
        write_atomically(folder / f"pool_{at}.sh", "\n".join(lines) + "\n")
