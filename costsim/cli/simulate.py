"""``costsim simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    complete_hardware,
    complete_model,
    deployment_options,
    emit,
    output_options,
    request_options,
    target_options,
)
from costsim.cli.simulate_options import fleet_table, refuse_unused, simulate_options

if TYPE_CHECKING:
    from costsim.planning.simulate import Simulated


@click.command("simulate")
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("hardware", required=False, shell_complete=complete_hardware)
@click.option("--fleet", type=click.Path(path_type=Path),
              help="TOML file with replicas, pools and traffic (docs/serving.md).")
@simulate_options
@request_options
@target_options
@deployment_options
@output_options
def command(
    model: str | None, hardware: str | None, as_json: bool, output: Path | None, **options: Any
) -> None:
    """Send a trace or generated traffic through the discrete-event model of a fleet.

    Example: costsim simulate llama-3.1-70b h100_sxm --tp 4 --rate 4 --requests 2000 --replicas 2
    """
    from costsim.cli.run import progress_bar
    from costsim.planning.fleet_file import fleet_of
    from costsim.planning.simulate import simulate
    from costsim.reports.tables_simulation import simulation_table

    refuse_unused(click.get_current_context(), options)
    table, folder = fleet_table(model, hardware, options | {"output": output})
    case = fleet_of(table, folder, str(options["fleet"] or "simulate"))
    with progress_bar(as_json) as say:
        found = simulate(
            case, processes=options["processes"], time_limit_s=options["time_limit"],
            checkpoint=options["checkpoint"],
            progress=lambda now, done, known: say(done, known, f"simulated {now:,.0f} s"),
        )
    emit(found.as_dict(), lambda: simulation_table(found), as_json, output, "simulation")
    if output is not None:
        _write(found, output, as_json, options["table"])


def _write(found: Simulated, output: Path, quiet: bool, kind: str) -> None:
    from costsim.reports.figures_simulation import draw_simulation, draw_timelines

    paths = [found.write_requests(output / f"requests.{kind}"),
             found.write_timelines(output / f"timelines.{kind}"),
             *draw_simulation(found, output), *draw_timelines(found, output)]
    click.echo(f"written: {', '.join(str(p) for p in paths)}", err=quiet)
