"""``costsim compare``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
    PositiveNumber,
    emit,
    output_options,
    request_options,
    target_from,
    target_options,
)

if TYPE_CHECKING:
    from costsim.engine.deployment import Deployment
    from costsim.planning.compare import Comparison


@click.command("compare")
@click.argument("deployments", nargs=-1, required=True, metavar="MODEL@HARDWARE...")
@click.option("--batch", type=PositiveNumber(whole=True), help="Requests in flight; default: the "
              "best within the targets.")
@request_options
@target_options
@click.option("--max-accelerators", type=PositiveNumber(whole=True), default=64,
              show_default=True, help="Of one replica.")
@click.option("--fleet", type=PositiveNumber(whole=True), help="Accelerators of a kind that can "
              "be had.")
@click.option("--engine", default="vllm", show_default=True, help="Engine preset.")
@click.option("--price", default="on_demand", show_default=True, help="Term of the rent.")
@output_options
def command(
    deployments: tuple[str, ...], batch: int | None, isl: float, osl: float,
    max_accelerators: int, fleet: int | None, engine: str, price: str, as_json: bool,
    output: Path | None, **options: Any,
) -> None:
    """Put deployments side by side, each at its best layout, and say where they change places.

    A deployment is MODEL@HARDWARE, with :PRECISION and /LAYOUT where wanted:
    llama-3.1-70b@h100_sxm:fp8/tp4.

    Example: costsim compare mixtral-8x7b@h100_sxm llama-3.1-70b@h100_sxm:fp8 --tpot 50ms
    """
    from costsim.errors import InputError
    from costsim.planning.compare import compare

    if len(deployments) < 2:
        raise InputError("compare needs two or more deployments, such as "
                         "mixtral-8x7b@h100_sxm llama-3.1-70b@h100_sxm")
    parsed = [(text, *_deployment(text, engine)) for text in deployments]
    fixed = all(has_layout for _, _, has_layout in parsed)
    found = compare([(n, d) for n, d, _ in parsed], isl=isl, osl=osl, target=target_from(options),
                    price=price, max_accelerators=max_accelerators,
                    fleet_accelerators=float(fleet) if fleet else math.inf,
                    fixed_layouts=fixed, batch=batch)
    emit(found.as_dict(), lambda: _table(found), as_json, output, "compare")
    if output is not None:
        from costsim.reports.figures_whatif import draw_comparison

        paths = draw_comparison(found, output)
        click.echo(f"figures: {', '.join(str(p) for p in paths)}", err=as_json)


def _deployment(text: str, engine: str) -> tuple[Deployment, bool]:
    from costsim.errors import InputError
    from costsim.planning.estimate import make_deployment
    from costsim.planning.precision import precision_from

    model, at, rest = text.partition("@")
    if not at or not model or not rest:
        raise InputError(f"'{text}': a deployment is MODEL@HARDWARE, for example "
                         "mixtral-8x7b@h100_sxm:fp8/tp4")
    body, _, layout = rest.partition("/")
    hardware, _, precision = body.partition(":")
    parsed = _layout(layout, text) if layout else None
    return make_deployment(model, hardware, parsed, engine=engine,
                           precision=precision_from(model, precision or None, None)), bool(layout)


def _layout(text: str, whole: str) -> Any:
    import re

    from costsim.engine.layout import Layout
    from costsim.errors import InputError

    fields: dict[str, Any] = {}
    for piece in re.findall(r"[a-z]+\d+", text.lower()):
        name, number = re.fullmatch(r"([a-z]+)(\d+)", piece).groups()  # type: ignore[union-attr]
        if name not in ("tp", "pp", "ep", "dp", "cp"):
            raise InputError(f"'{whole}': layout '{piece}' is unknown; allowed: tp, pp, ep, dp, cp")
        fields[name] = int(number)
    if not fields:
        raise InputError(f"'{whole}': layout '{text}' must look like tp4ep4")
    return Layout(**fields)


def _table(found: Comparison) -> Any:
    from rich.console import Group

    from costsim.reports.tables_estimate import estimate_table
    from costsim.units import format_quantity

    lines = []
    for cross in found.crossovers:
        lines.append(f"below {format_quantity(cross.requests_per_s, 'rate')} {cross.cheaper_below}"
                     f" is cheaper per query, above it {cross.cheaper_above}")
    if not found.crossovers:
        cheapest = min(found.curves, key=lambda c: c.floor_usd)
        lines.append(f"no crossover: {cheapest.name} is cheapest at every load")
    missed = [n for n, c in zip(found.names, found.choices, strict=True) if not c.met]
    lines += [f"{name}: no layout meets the targets; the nearest is shown" for name in missed]
    return Group(estimate_table(found.estimates, found.names), "", *lines)
