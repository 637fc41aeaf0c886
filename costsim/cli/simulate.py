"""``costsim simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    Seconds,
    complete_hardware,
    complete_model,
    deployment_options,
    emit,
    layout_from,
    output_options,
    request_options,
    target_options,
)

if TYPE_CHECKING:
    from costsim.planning.simulate import Simulated


@click.command("simulate")
@click.argument("model", shell_complete=complete_model)
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--trace", type=click.Path(path_type=Path), help="Trace: Azure, BurstGPT, Mooncake, "
              "ShareGPT or arrival_s,input_tokens,output_tokens.")
@click.option("--traffic", "traffic_file", type=click.Path(path_type=Path),
              help="TOML table of traffic (see docs/serving.md) instead of the options below.")
@click.option("--rate", type=PositiveNumber(), help="Requests per second; rescales a trace.")
@click.option("--arrivals", type=click.Choice(["poisson", "gamma", "diurnal", "weekly"]),
              default="poisson", show_default=True)
@click.option("--cv", type=PositiveNumber(), help="Variation of the gaps of gamma arrivals.")
@click.option("--requests", type=PositiveNumber(whole=True), help="How many requests.")
@click.option("--users", type=PositiveNumber(whole=True), help="Closed loop of so many users.")
@click.option("--think", type=Seconds(), default=0.0, help="Think time of the closed loop.")
@click.option("--length-cv", type=PositiveNumber(zero=True), default=0.0,
              help="Variation of generated lengths.")
@request_options
@target_options
@click.option("--replicas", type=PositiveNumber(whole=True), default=1, show_default=True)
@click.option("--router", default="least_outstanding", show_default=True)
@click.option("--policy", default="", help="Scheduler: chunked, static, orca, prefill_first …")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", is_flag=True, help="Take every step (the slow oracle).")
@click.option("--allow-overload", is_flag=True, help="Simulate a load above the capacity.")
@click.option("--time-limit", type=Seconds(), help="Stop after so much wall-clock time.")
@click.option("--invariants", is_flag=True, help="Check conservation after every event.")
@deployment_options
@output_options
def command(
    model: str, hardware: str, precision: str | None, kv: str | None, engine: str, price: str,
    as_json: bool, output: Path | None, **options: Any,
) -> None:
    """Send a trace or generated traffic through the discrete-event model of a fleet.

    Example: costsim simulate llama-3.1-70b h100_sxm --tp 4 --rate 4 --requests 2000 --replicas 2
    """
    from costsim.cli.build import precision_from
    from costsim.cli.run import progress_bar
    from costsim.planning.estimate import make_deployment
    from costsim.planning.simulate import simulate

    deployment = make_deployment(
        model, hardware, layout_from(options), precision=precision_from(model, precision, kv),
        engine=engine, context=options["isl"] + options["osl"])
    table, folder = traffic_table(options)
    scheduler = {"policy": options["policy"]} if options["policy"] else {}
    with progress_bar(as_json) as say:
        found = simulate(
            deployment, table, replicas=options["replicas"], router=options["router"],
            seed=options["seed"], price=price, allow_overload=options["allow_overload"],
            folder=folder, mode="steps" if options["steps"] else "fast", scheduler=scheduler,
            time_limit_s=options["time_limit"], invariants=options["invariants"],
            sample_s=_sample(output), progress=lambda now, done, known: say(
                done, known, f"simulated {now:,.0f} s"))
    emit(found.as_dict(), lambda: _table(found), as_json, output, "simulation")
    if output is not None:
        _write(found, output, as_json)


def _sample(output: Path | None) -> float:
    return 0.0 if output is None else 1.0


def traffic_table(options: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """Return the traffic's table and the folder its trace lies in."""
    from costsim import loading
    from costsim.errors import InputError

    if options["traffic_file"] is not None:
        path = options["traffic_file"]
        return loading.read_toml(path), path.parent
    table: dict[str, Any] = {}
    if options["trace"] is not None:
        table["trace"] = str(options["trace"])
        if options["rate"]:
            table["rate"] = options["rate"]
        if options["requests"]:
            table["requests"] = options["requests"]
        return table, Path()
    table |= {"input_tokens": round(options["isl"]), "output_tokens": round(options["osl"]),
              "length_cv": options["length_cv"], "requests": options["requests"] or 1000}
    if options["users"]:
        turns = -(-table["requests"] // options["users"])
        return table | {"sessions": {"users": options["users"], "think_s": options["think"],
                                     "turns": turns, "grows": False}}, Path()
    if not options["rate"]:
        raise InputError("simulate needs --trace, --traffic, --rate or --users")
    table |= {"arrivals": options["arrivals"], "rate": options["rate"]}
    if options["cv"]:
        table |= {"arrivals": "gamma", "cv": options["cv"]}
    return table, Path()


def _table(found: Simulated) -> Any:
    from rich.console import Group

    from costsim.reports.tables import plain_table
    from costsim.units import format_quantity

    figures = found.result.summary()
    rows = []
    for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("ITL", "itl_s"), ("E2E", "e2e_s"),
                      ("queueing", "queue_s")):
        rows.append([name, *(format_quantity(float(figures[key][s]), "time")
                             for s in ("mean", "p50", "p90", "p99"))])
    d = found.deployment
    head = (f"{d.model.title} on {found.replicas} x {int(d.accelerators)} {d.hardware.name} "
            f"({d.layout}), {found.router}")
    lines = [
        f"finished {figures['finished']:,} of {figures['requests']:,} requests in "
        f"{format_quantity(figures['duration_s'], 'time')} simulated; "
        f"{figures['preemptions']} preemptions, {figures['rejected']} rejected, "
        f"{figures['timed_out']} timed out",
        f"throughput {figures['requests_per_s']:.3g} requests/s"
        f"{_offered(found)} (capacity {found.capacity_requests_per_s:.3g}), "
        f"{figures['output_tokens_per_s']:,.0f} output tokens/s; utilisation "
        f"{100 * figures['utilisation']:.0f} %, mean batch {figures['mean_batch']:.1f}, KV cache "
        f"{100 * figures['kv_occupancy']:.0f} % full",
        f"${found.usd:,.2f} in all, {format_quantity(found.usd_per_query, 'money')} a query, "
        f"${found.usd_per_million_tokens:.3g} per 1M tokens at ${float(found.rent.central):.2f}/h "
        f"({found.rent.note})",
    ]
    if not figures["complete"]:
        lines.append("stopped by the time limit: the figures are of an unfinished run")
    return Group(plain_table(head, ("", "mean", "p50", "p90", "p99"), rows), *lines)


def _offered(found: Simulated) -> str:
    rate = found.offered_requests_per_s
    return f" of {rate:.3g} offered" if rate else ""


def _write(found: Simulated, output: Path, quiet: bool) -> None:
    from costsim.reports.figures_simulation import draw_simulation

    paths = [found.result.write_requests(output / "requests.csv"),
             found.result.write_timelines(output / "timelines.csv"),
             *draw_simulation(found, output)]
    click.echo(f"written: {', '.join(str(p) for p in paths)}", err=quiet)
