"""``costsim sparsity laws|fit|plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    complete_hardware,
    emit,
    output_options,
    request_options,
    target_from,
    target_options,
)

if TYPE_CHECKING:
    from costsim.planning.life_cost import LifeResult


@click.group("sparsity")
def command() -> None:
    """Does sparsity pay: laws of quality, fits of your own runs, cost over a model's life.

    Example: costsim sparsity plan --loss 2.2 --queries 1e10
    """


@command.command("laws")
@output_options
def laws(as_json: bool, output: Path | None) -> None:
    """List the published laws with their range and source.

    Example: costsim sparsity laws
    """
    from costsim.reports.tables import plain_table
    from costsim.sparsity.laws import law_names, load_law

    found = [load_law(name) for name in law_names()]
    data = [{"name": x.name, "title": x.title, "form": x.form, "valid": dict(x.valid),
             "loss": x.loss, "source": x.source, "provenance": x.provenance, "caveat": x.caveat}
            for x in found]
    emit(data, lambda: plain_table(
        "Laws of loss against size, data and sparsity", ("name", "title", "caveat", "source"),
        [[x.name, x.title, x.caveat, x.source] for x in found], left=4), as_json, output, "laws")


@command.command("fit")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--active", type=PositiveNumber(), required=True,
              help="Active parameters of the planned model, such as 280B.")
@click.option("--experts", type=PositiveNumber(), default=16, show_default=True,
              help="Expert weights in total over those a token uses.")
@click.option("--tokens", type=PositiveNumber(), required=True, help="Planned training tokens.")
@click.option("--granularity", type=PositiveNumber(), default=1.0, show_default=True)
@click.option("--bootstrap", type=PositiveNumber(whole=True), default=200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@output_options
def fit(
    runs: Path, active: float, experts: float, tokens: float, granularity: float, bootstrap: int,
    seed: int, as_json: bool, output: Path | None,
) -> None:
    """Fit your own small runs, choose the law on the largest held-out ones, and extrapolate.

    RUNS is a CSV with active,total,experts,top_k,granularity,tokens,loss.

    Example: costsim sparsity fit runs.csv --active 280B --experts 16 --tokens 13T
    """
    from costsim.cli.run import progress_bar
    from costsim.sparsity.fit import fit_runs, judge, read_runs
    from costsim.sparsity.forms import Design

    table = read_runs(runs)
    with progress_bar(as_json) as say:
        law = fit_runs(table, bootstrap=bootstrap, seed=seed,
                       progress=lambda done, total: say(done, total, "bootstrap"))
    import numpy as np

    largest = float(np.max(np.asarray(table.design.active, float)))
    near = float(np.median(np.asarray(table.design.tokens, float)))
    share = 1.0 + 0.66 * (experts - 1.0)
    small = (Design(largest, largest, near), Design(largest, largest * share, near, experts,
                                                    granularity))
    planned = (Design(active, active, tokens), Design(active, active * share, tokens, experts,
                                                      granularity))
    verdict = judge(law, small, planned)
    low, high = law.interval(planned[1])
    data = {
        "law": law.form, "coefficients": dict(law.coefficients),
        "trials": [vars(t) for t in law.trials], "planned_loss": float(law.predict(planned[1])),
        "planned_interval": [float(low), float(high)], "gain_at_runs": verdict.small_gain,
        "gain_at_plan": verdict.planned_gain,
        "gain_interval": [verdict.planned_low, verdict.planned_high],
        "warnings": list(verdict.warnings),
    }
    emit(data, lambda: _fit_table(data), as_json, output, "sparsity_fit")


def _fit_table(data: dict[str, Any]) -> Any:
    from rich.console import Group

    from costsim.reports.tables import plain_table

    trials = [[t["form"], f"{100 * t['heldout_rms']:.2f} %", f"{100 * t['heldout_bias']:+.2f} %",
               f"{100 * t['fit_rms']:.2f} %"] for t in data["trials"]]
    low, high = data["planned_interval"]
    g_low, g_high = data["gain_interval"]
    lines = [
        f"loss at the planned size: {data['planned_loss']:.3f} \\[{low:.3f} – {high:.3f}]",
        f"gain of sparsity in loss: {data['gain_at_runs']:+.3f} where the runs are, "
        f"{data['gain_at_plan']:+.3f} \\[{g_low:+.3f} – {g_high:+.3f}] at the planned size",
        *[f"! {line}" for line in data["warnings"]],
    ]
    return Group(plain_table("Laws tried: fitted on the smaller runs, tested on the largest",
                             ("law", "largest runs, rms", "bias", "fit, rms"), trials), *lines)


@command.command("plan")
@click.option("--loss", type=PositiveNumber(), help="Quality to reach, in the law's unit.")
@click.option("--as-good-as", metavar="PARAMETERS,TOKENS", help="Or: as good as a dense model of "
              "that size and data, such as 70B,15T.")
@click.option("--law", default="ludziejewski", show_default=True, help="See: sparsity laws.")
@click.option("--queries", type=PositiveNumber(), default=1e10, show_default=True,
              help="Served over the model's life.")
@click.option("--hardware", default="h100_sxm", show_default=True,
              shell_complete=complete_hardware)
@click.option("--accelerators", type=PositiveNumber(whole=True), default=64, show_default=True,
              help="Chips that one replica may use.")
@click.option("--granularity", default="1", show_default=True, help="Values to try, 1,4,8.")
@click.option("--mfu", type=PositiveNumber(), default=0.4, show_default=True,
              help="Assumed in training.")
@request_options
@target_options
@output_options
def plan(
    loss: float | None, as_good_as: str | None, law: str, queries: float, hardware: str,
    accelerators: int, granularity: str, mfu: float, isl: float, osl: float, as_json: bool,
    output: Path | None, **options: Any,
) -> None:
    """Find the cheapest design over its life: training and serving, dense against sparse.

    Example: costsim sparsity plan --as-good-as 7B,2T --queries 1e10 --tpot 50ms
    """
    from costsim.cli.run import progress_bar
    from costsim.errors import InputError
    from costsim.hardware.loader import load_hardware
    from costsim.planning.life_cost import LifePlan, optimise
    from costsim.sparsity.laws import load_law

    chosen = load_law(law)
    if (loss is None) == (as_good_as is None):
        raise InputError("sparsity plan needs either --loss or --as-good-as")
    wanted = loss if loss is not None else _loss_of(chosen, str(as_good_as))
    values = _whole_list(granularity)
    wish = LifePlan(wanted, queries, isl, osl, target_from(options), accelerators, mfu)
    with progress_bar(as_json) as say:
        found = optimise(chosen, wish, load_hardware(hardware), values,
                         progress=lambda done, total: say(done, total, "designs"))
    data = _plan_data(found, wanted, chosen.title, mfu)
    emit(data, lambda: _plan_table(found, data), as_json, output, "sparsity_plan")
    if output is not None:
        from costsim.reports.figures_sparsity import draw_life_cost

        paths = draw_life_cost(found, wish, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


def _loss_of(law: Any, text: str) -> float:
    from costsim.errors import InputError
    from costsim.sparsity.forms import Design
    from costsim.units import parse_quantity

    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(f"--as-good-as {text}: must be PARAMETERS,TOKENS, such as 70B,15T")
    size, tokens = (parse_quantity(p.strip(), "count", where="--as-good-as") for p in parts)
    return float(law.predict(Design(size, size, tokens)))


def _whole_list(text: str) -> list[int]:
    from costsim.errors import InputError

    try:
        values = [int(v) for v in text.split(",")]
    except ValueError:
        values = [0]
    if min(values) < 1:
        raise InputError(f"--granularity {text}: must be whole numbers of at least 1")
    return values


def _plan_data(found: LifeResult, loss: float, law: str, mfu: float) -> dict[str, Any]:
    return {
        "loss": loss, "law": law, "training_mfu_assumed": mfu, "best": found.best.as_dict(),
        "by_experts": {str(e): c.as_dict() for e, c in found.by_experts.items()},
        "break_even": {str(e): vars(v) for e, v in found.break_even.items()},
        "designs": len(found.everything),
    }


def _plan_table(found: LifeResult, data: dict[str, Any]) -> Any:
    from rich.console import Group

    from costsim.reports.tables import plain_table
    from costsim.units import format_quantity

    rows = []
    for experts, c in found.by_experts.items():
        even = found.break_even.get(experts)
        rows.append([
            c.design.name, format_quantity(c.total, "count"), format_quantity(c.tokens, "count"),
            format_quantity(c.training_usd, "money"), format_quantity(c.usd_per_query, "money"),
            format_quantity(c.total_usd, "money"), c.binds,
            f"{int(c.estimate.deployment.accelerators)} ({c.estimate.deployment.layout})"
            if c.estimate else "–", "–" if even is None else str(even)])
    columns = ("design", "total", "tokens", "training", "$/query", "life", "binds", "replica",
               "cheaper than dense")
    lines = [f"best over the life: {found.best.design.name}; loss {data['loss']:.3f} by "
             f"{data['law']}; training at an assumed MFU of "
             f"{100 * data['training_mfu_assumed']:.0f} %; {len(found.everything)} designs priced"]
    lines += [f"! {w}" for w in dict.fromkeys(c.warning for c in found.by_experts.values()) if w]
    return Group(plain_table("Cheapest design for each number of experts", columns, rows), *lines)
