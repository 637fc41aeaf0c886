"""``costsim sparsity laws|fit|plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
              "that size and data, such as 70B,15T; or a model by name: llama-3.1-70b,15T.")
@click.option("--law", default="ludziejewski", show_default=True, help="See: sparsity laws.")
@click.option("--queries", type=PositiveNumber(), default=1e10, show_default=True,
              help="Served over the model's life.")
@click.option("--hardware", default="h100_sxm", show_default=True,
              shell_complete=complete_hardware)
@click.option("--accelerators", type=PositiveNumber(whole=True), default=64, show_default=True,
              help="Chips that one replica may use.")
@click.option("--training-accelerators", type=PositiveNumber(whole=True), default=1024,
              show_default=True, help="Chips of the training run.")
@click.option("--granularity", default="1,4", show_default=True,
              help="Experts of a token (top-k, each as much narrower) to try.")
@click.option("--shared", default="0,1", show_default=True, help="Shared experts to try.")
@click.option("--mfu", type=click.FloatRange(0, 1), default=0.0, help="Assumed in training; "
              "without it MFU is predicted.")
@click.option("--precision", default="fp8", show_default=True, help="Of the served weights.")
@click.option("--training-price", default="reserved_3y", show_default=True)
@click.option("--price", default="on_demand", show_default=True,
              help="Term of the rent of serving.")
@click.option("--exhaustive", is_flag=True, help="Price every combination of the grid.")
@click.option("--no-variants", is_flag=True, help="Leave out pruned and quantised variants.")
@request_options
@target_options
@output_options
def plan(as_json: bool, output: Path | None, **options: Any) -> None:
    """Find the cheapest design over its life: training and serving, dense against sparse.

    Searched are active and total parameters, experts, top-k, granularity, shared experts and
    training tokens. Pruned and quantised variants of the best dense design stand beside them.

    Example: costsim sparsity plan --as-good-as 7B,2T --queries 1e10 --tpot 50ms
    """
    from costsim.cli.run import progress_bar
    from costsim.hardware.loader import load_hardware
    from costsim.planning.life_cost import LifePlan
    from costsim.planning.life_search import optimise, quality_front
    from costsim.planning.life_variants import variants
    from costsim.reports.tables_sparsity import plan_data, plan_table
    from costsim.sparsity.laws import load_law

    law = load_law(options["law"])
    hardware = load_hardware(options["hardware"])
    wish = LifePlan(
        _wanted_loss(law, options), options["queries"], options["isl"], options["osl"],
        target_from(options), options["accelerators"], options["mfu"],
        options["training_accelerators"], training_price=options["training_price"],
        serving_price=options["price"], precision=options["precision"])
    with progress_bar(as_json) as say:
        found = optimise(
            law, wish, hardware, granularity=_whole_list(options["granularity"], "granularity", 1),
            shared=_whole_list(options["shared"], "shared", 0), exhaustive=options["exhaustive"],
            progress=lambda done, total: say(done, total, "designs"))
        base = None if options["no_variants"] else (found.dense or found.best)
        others = variants(base.design, law, wish, hardware) if base else []
    front = quality_front(found.everything, law, found.best.training_usd)
    data = plan_data(found, wish, law, others, front)
    emit(data, lambda: plan_table(data), as_json, output, "sparsity_plan")
    if output is not None:
        from costsim.reports.figures_sparsity import draw_life_cost, draw_quality

        paths = draw_life_cost(found, wish, output)
        paths += draw_quality(front, wish, law, found.best.training_usd, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


def _wanted_loss(law: Any, options: dict[str, Any]) -> float:
    from costsim.errors import InputError

    loss, model = options["loss"], options["as_good_as"]
    if (loss is None) == (model is None):
        raise InputError("sparsity plan needs either --loss or --as-good-as")
    return float(loss) if loss is not None else _loss_of(law, model)


def _loss_of(law: Any, text: str) -> float:
    from costsim.errors import InputError
    from costsim.sparsity.forms import Design
    from costsim.units import parse_quantity

    size, comma, tokens = text.partition(",")
    if not comma:
        raise InputError(f"--as-good-as {text}: must be PARAMETERS,TOKENS or MODEL,TOKENS, such as "
                         "70B,15T or llama-3.1-70b,15T")
    trained = parse_quantity(tokens.strip(), "count", where="--as-good-as")
    try:
        active = total = parse_quantity(size.strip(), "count", where="--as-good-as")
        experts = 1.0
    except InputError:
        active, total, experts = _sizes_of(size.strip())
    return float(law.predict(Design(active, total, trained, experts)))


def _sizes_of(name: str) -> tuple[float, float, float]:
    """Return active and total parameters without embeddings, and experts over top-k, of a model."""
    from costsim.models.count import parameters
    from costsim.models.loader import load_model

    model = load_model(name)
    counted = parameters(model)
    outside = float(counted.embedding + counted.head)
    ratio = max((x.ffn.experts / x.ffn.top_k for x in model.layers
                 if x.ffn and x.ffn.kind == "moe"), default=1.0)
    return counted.active - outside, counted.total - outside, ratio


def _whole_list(text: str, name: str, least: int) -> list[int]:
    from costsim.errors import InputError

    try:
        values = [int(v) for v in text.split(",")]
    except ValueError:
        values = [least - 1]
    if min(values) < least:
        raise InputError(f"--{name} {text}: must be whole numbers of at least {least}")
    return values
