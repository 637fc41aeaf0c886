"""``costsim train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    complete_hardware,
    complete_model,
    emit,
    output_options,
)

if TYPE_CHECKING:
    from costsim.training.estimate import TrainingEstimate
    from costsim.training.plan import TrainingPlan

_LAYOUT = ("tp", "pp", "dp", "ep", "micro_batch", "virtual_stages")


@click.command("train")
@click.argument("model", shell_complete=complete_model)
@click.argument("hardware", shell_complete=complete_hardware)
@click.option("--accelerators", default="1024", show_default=True,
              help="One number, or several: 256,512,1024.")
@click.option("--tokens", type=PositiveNumber(), required=True, help="To train on, such as 2T.")
@click.option("--batch", type=PositiveNumber(), default="4194304", show_default=True,
              help="Tokens of an optimiser step.")
@click.option("--sequence", type=PositiveNumber(whole=True), default=4096, show_default=True)
@click.option("--tp", type=PositiveNumber(whole=True), help="Tensor-parallel ranks; a layout that "
              "is given is not searched.")
@click.option("--pp", type=PositiveNumber(whole=True), help="Pipeline stages.")
@click.option("--dp", type=PositiveNumber(whole=True), help="Data-parallel ranks.")
@click.option("--ep", type=PositiveNumber(whole=True), help="Expert-parallel ranks.")
@click.option("--cp", type=PositiveNumber(whole=True), default=1, help="Context-parallel ranks.")
@click.option("--micro-batch", type=PositiveNumber(whole=True), help="Sequences.")
@click.option("--virtual-stages", type=PositiveNumber(whole=True), help="Chunks of each stage.")
@click.option("--zero", type=click.IntRange(0, 3), help="ZeRO stage; default: searched, or 1.")
@click.option("--recompute", help="none, selective or full; default: searched, or none.")
@click.option("--schedule", help="Pipeline: gpipe, 1f1b, interleaved, zero_bubble, dualpipe.")
@click.option("--precision", default="bf16", show_default=True, help="Of GEMMs, such as fp8.")
@click.option("--overlap", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Share of tensor-, expert- and context-parallel traffic hidden by compute.")
@click.option("--price", default="reserved_1y", show_default=True,
              help="Term of the rent, or $/h of one accelerator.")
@click.option("--mtbf", type=PositiveNumber(), help="Hours between failures of one accelerator.")
@click.option("--checkpoint", type=PositiveNumber(), help="Seconds a checkpoint stops the run.")
@click.option("--restart", type=PositiveNumber(), help="Seconds from failure to useful work.")
@click.option("--no-failures", is_flag=True, help="A run without failures and checkpoints.")
@click.option("--kernels-only", is_flag=True, help="Without the share of time that measured runs "
              "take beyond their kernels, messages and bubbles.")
@output_options
def command(model: str, hardware: str, as_json: bool, output: Path | None, **options: Any) -> None:
    """Say what a training run costs and how long it takes; MFU is predicted, not assumed.

    Without a layout the fastest that fits in memory is searched.

    \b
    Examples:
      costsim train llama-3.1-70b h100_sxm --accelerators 1024,2048,4096 --tokens 15T
      costsim train deepseek-v3 h800_sxm --tokens 14.8T --batch 62914560 --pp 16 --dp 128 --ep 64
    """
    from costsim.hardware.loader import load_hardware
    from costsim.reports.tables_training import estimate_data, training_table
    from costsim.training.published_rows import model_of

    chosen, machine = model_of(model), load_hardware(hardware)
    found = _estimates(chosen, machine, options)
    title = f"Training {chosen.title} on {options['tokens']:.3g} tokens on {machine.name}"
    emit([estimate_data(e) for e in found],
         lambda: training_table(found, title, _notes(found)), as_json, output, "training")
    if output is not None:
        from costsim.reports.figures_training import draw_training

        paths = draw_training(found, title, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


def _estimates(model: Any, hardware: Any, options: dict[str, Any]) -> list[TrainingEstimate]:
    from costsim.training.estimate import estimate_training
    from costsim.training.search import search_layout

    plan, price = _plan(options), _price(options["price"])
    if any(options[name] for name in _LAYOUT):
        return [estimate_training(model, hardware, plan, price=price)]
    from costsim.training.plan import RECOMPUTE

    zero = (1, 3) if options["zero"] is None else (options["zero"],)
    again = RECOMPUTE if options["recompute"] is None else (options["recompute"],)
    return [search_layout(model, hardware, n, plan, zero=zero, recompute=again, price=price)
            for n in _counts(options["accelerators"])]


def _plan(options: dict[str, Any]) -> TrainingPlan:
    from costsim.engine.precision import Precision
    from costsim.training.plan import UNEXPLAINED, TrainingLayout, TrainingPlan

    layout = TrainingLayout(cp=options["cp"], **{k: options[k] or 1 for k in _LAYOUT})
    chunks = "interleaved" if layout.virtual_stages > 1 else "1f1b"
    kind = options["precision"]
    precision = Precision() if kind == "bf16" else Precision(kind, kind, kind, "bf16", kind)
    return TrainingPlan(
        options["tokens"], options["batch"], options["sequence"], layout,
        zero=1 if options["zero"] is None else options["zero"],
        recompute=options["recompute"] or "none", schedule=options["schedule"] or chunks,
        precision=precision, overlap_model=options["overlap"], failures=_failures(options),
        unexplained=0.0 if options["kernels_only"] else UNEXPLAINED)


def _failures(options: dict[str, Any]) -> Any:
    from costsim.training.plan import Failures

    if options["no_failures"]:
        return None
    given = {"mtbf_h": options["mtbf"], "checkpoint_s": options["checkpoint"],
             "restart_s": options["restart"]}
    return Failures(**{name: value for name, value in given.items() if value is not None})


def _price(text: str) -> str | tuple[float, float, float]:
    from costsim.economics.prices import TERMS
    from costsim.units import parse_quantity

    if text in TERMS:
        return text
    value = float(parse_quantity(text, "price_per_hour", where="--price"))
    return value, value, value


def _counts(text: str) -> list[int]:
    from costsim.errors import InputError

    try:
        counts = [int(v) for v in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise InputError(f"--accelerators {text}: must be whole numbers of at least 1")
    return counts


def _notes(found: list[TrainingEstimate]) -> list[str]:
    share = found[0].plan.unexplained
    notes = [f"MFU counts attention without its mask; kernel times {found[0].provenance}; "
             f"{100 * share:.1f} % of time beyond the kernels, as measured runs show "
             "(docs/training.md)"]
    if found[0].searched:
        notes.append("layout searched: the fastest that fits bounds the time from below, so that "
                     "the interval reaches further up")
    if any(not bool(e.fits) for e in found):
        notes.append("! the layout needs more memory than 94 % of an accelerator's")
    return notes
