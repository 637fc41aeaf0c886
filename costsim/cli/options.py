"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from costsim.errors import InputError

if TYPE_CHECKING:
    from costsim.engine.layout import Layout
    from costsim.planning.targets import Target

Command = TypeVar("Command", bound=Callable[..., Any])


def _names(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from costsim import library

        if kind == "models":
            from costsim.models.loader import list_models

            names = list_models()
        else:
            names = library.names(kind)
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_hardware = _names("hardware_profiles")
complete_model = _names("models")
complete_scenario = _names("scenarios")


class PositiveNumber(click.ParamType):
    """A finite number above zero; k, M and B count thousands, millions, billions."""

    name = "number"

    def __init__(self, whole: bool = False, zero: bool = False) -> None:
        self.whole, self.zero = whole, zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int:
        """Return the number, or fail with one line."""
        from costsim.units import parse_quantity

        try:
            number = parse_quantity(value, "count")
        except InputError:
            number = math.nan
        floor = 0.0 if self.zero else 1e-300
        if not (math.isfinite(number) and number >= floor):
            self.fail(f"'{value}' must be a positive number", param, ctx)
        if self.whole and number != int(number):
            self.fail(f"'{value}' must be a whole number", param, ctx)
        return int(number) if self.whole else number


class Seconds(click.ParamType):
    """A duration such as ``50ms`` or ``2 s``; a bare number is seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds, or fail with one line."""
        from costsim.units import parse_quantity

        try:
            return parse_quantity(value, "time")
        except InputError as mistake:
            self.fail(str(mistake), param, ctx)


def output_options(command: Command) -> Command:
    """Add --json and --output."""
    command = click.option("--output", type=click.Path(file_okay=False, path_type=Path),
                           help="Folder to write results into.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def layout_options(command: Command) -> Command:
    """Add layout, precision and engine."""
    for option in reversed((
        click.option("--tp", type=PositiveNumber(whole=True), help="Tensor-parallel ranks."),
        click.option("--pp", type=PositiveNumber(whole=True), default=1, help="Pipeline stages."),
        click.option("--ep", type=PositiveNumber(whole=True), default=1,
                     help="Expert-parallel ranks."),
        click.option("--dp", type=PositiveNumber(whole=True), default=1,
                     help="Attention data-parallel groups."),
        click.option("--cp", type=PositiveNumber(whole=True), default=1,
                     help="Context-parallel ranks in decode."),
        click.option("--precision", help="Data type of all weights, such as fp8; default: as the "
                                         "checkpoint is."),
        click.option("--kv", help="Data type of the KV cache."),
        click.option("--engine", default="vllm", show_default=True, help="Engine preset."),
    )):
        command = option(command)
    return command


def deployment_options(command: Command) -> Command:
    """Add layout, precision, engine and price."""
    command = click.option("--price", default="on_demand", show_default=True,
                           help="Term of the rent.")(command)
    return layout_options(command)


def change_option(command: Command) -> Command:
    """Add --set."""
    return click.option(
        "--set", "changes", multiple=True, metavar="FIELD=VALUE",
        help="Set a field of engine, layout, precision, hardware or model; may be repeated. "
             "engine.prefix_hit=0.4, engine.speculation=mtp:1:0.8, engine.routing=power_law:0.6, "
             "engine.cuda_graphs=false, layout.sequence_parallel=true, precision.attention=bf16.",
    )(command)


def request_options(command: Command) -> Command:
    """Add --isl and --osl."""
    command = click.option("--osl", type=PositiveNumber(), default=256, show_default=True,
                           help="Output tokens of a request.")(command)
    return click.option("--isl", type=PositiveNumber(), default=1024, show_default=True,
                        help="Prompt tokens of a request.")(command)


def target_options(command: Command) -> Command:
    """Add --ttft and --tpot."""
    command = click.option("--tpot", type=Seconds(), help="Target, such as 50ms.")(command)
    return click.option("--ttft", type=Seconds(), help="Target, such as 2s.")(command)


def layout_from(options: dict[str, Any]) -> Layout | None:
    """Return the layout of --tp, --pp, --ep, --dp, --cp, or None where none was given."""
    from costsim.engine.layout import Layout

    tp, pp, ep, dp, cp = (options.pop(k) for k in ("tp", "pp", "ep", "dp", "cp"))
    if tp is None and (pp, ep, dp, cp) == (1, 1, 1, 1):
        return None
    return Layout(tp=tp or 1, pp=pp, ep=ep, dp=dp, cp=cp)


def target_from(options: dict[str, Any]) -> Target:
    """Return the targets of --ttft and --tpot."""
    from costsim.planning.targets import Target

    ttft, tpot = options.pop("ttft"), options.pop("tpot")
    return Target(ttft_s=ttft or math.inf, tpot_s=tpot or math.inf)


def dump(data: Any) -> str:
    """Return strict JSON: infinities and NaN become null."""
    return json.dumps(_strict(data), indent=2, ensure_ascii=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if hasattr(value, "tolist"):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def emit(data: Any, table: Callable[[], Any], as_json: bool, output: Path | None,
         name: str) -> None:
    """Print a result as JSON or as a table, and write it where a folder was given."""
    from costsim.files import write_atomically

    if output is not None:
        write_atomically(output / f"{name}.json", dump(data) + "\n")
    if as_json:
        click.echo(dump(data))
        return
    from costsim.reports.tables import console

    console().print(table())
    if output is not None:
        click.echo(f"written: {output / (name + '.json')}")
