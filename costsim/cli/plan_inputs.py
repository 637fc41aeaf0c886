"""Options of ``costsim plan``, and the demands, hardware and rules that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from costsim.cli.options import PositiveNumber, complete_hardware, complete_model, target_options
from costsim.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])
_TERMS = ("on_demand", "spot", "reserved_1y", "reserved_3y", "owned")
_NAMES = {  # option: field of PlanOptions
    "spare": "spare", "zones": "zones", "budget": "budget_usd_per_month", "power": "power_cap_w",
    "seed": "seed", "electricity": "electricity", "spot_share": "max_spot_share",
    "cold_start": "cold_start_s", "max_chips": "max_accelerators", "engine": "engine",
}  # fmt: skip


class Range(click.ParamType):
    """A number above zero, or a range such as ``800..1500`` for a study of uncertainty."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the distribution, or fail with one line."""
        from costsim.planning.distributions import Distribution, range_of

        if isinstance(value, Distribution):
            return value
        try:
            given = range_of(str(value), "value")
        except InputError as mistake:
            self.fail(str(mistake), param, ctx)
        if not given.median > 0:
            self.fail(f"'{value}' must be above zero", param, ctx)
        return given


def what_options(command: Command) -> Command:
    """Add what has to be served, on what."""
    return _added(command, (
        click.option("--model", shell_complete=complete_model, help="Model, in place of a file."),
        click.option("--hardware", shell_complete=complete_hardware,
                     help="Candidates, such as h100_sxm,h200_sxm; 'h100_sxm:16' limits the chips."),
        click.option("--rate", help="Requests per second: 10, a range 8..14, or 24 or 168 by hour: "
                                    "10,12,…"),
        click.option("--users", type=PositiveNumber(), help="Users, in place of a rate."),
        click.option("--per-user", type=PositiveNumber(), default=12.0, show_default=True,
                     help="Requests of a user in an hour of work, for --users."),
        click.option("--trace", type=click.Path(path_type=Path), help="Trace, in place of a rate."),
        click.option("--isl", type=Range(), default="1024", show_default=True,
                     help="Prompt tokens of a request, or a range: 800..1500."),
        click.option("--osl", type=Range(), default="256", show_default=True,
                     help="Output tokens of a request, or a range."),
        click.option("--prefix-hits", type=click.FloatRange(0.0, 1.0, max_open=True),
                     help="Share of the prompt tokens found in the prefix cache."),
        target_options,
        click.option("--p99/--mean", "tails", default=True, show_default=True,
                     help="Targets hold for 99 % of requests, or for the mean."),
    ))  # fmt: skip


def terms_options(command: Command) -> Command:
    """Add how one may buy, and what the fleet must survive."""
    return _added(command, (
        click.option("--terms", default="on_demand,reserved_1y,reserved_3y", show_default=True,
                     help=f"Of {', '.join(_TERMS)}."),
        click.option("--price", "prices", multiple=True, metavar="HARDWARE[:TERM]=USD",
                     help="Own price of a chip-hour: h100_sxm=2.2, h100_sxm:spot=0.9..1.4."),
        click.option("--provider", default="", help="Only quotes of this provider, or of a kind: "
                     "hyperscaler, neocloud, marketplace."),
        click.option("--region", default="", help="Only quotes of regions that begin so: eu."),
        click.option("--electricity", help="Region of the electricity, such as us_texas."),
        click.option("--spot-share", type=click.FloatRange(0.0, 1.0),
                     help="Of a pool's replicas that may be spot (0.5), where --terms has spot."),
        click.option("--cold-start", type=PositiveNumber(zero=True),
                     help="Seconds from paying for a replica until it serves."),
        click.option("--spare", type=PositiveNumber(whole=True, zero=True),
                     help="Replicas of each pool that may fail (N+1: 1)."),
        click.option("--zones", type=PositiveNumber(whole=True),
                     help="One zone of so many may be lost."),
        click.option("--budget", type=PositiveNumber(), help="$ a month, at most."),
        click.option("--power", type=PositiveNumber(), help="W of IT power, at most."),
        click.option("--max-chips", type=PositiveNumber(whole=True),
                     help="Accelerators of one replica (16)."),
        click.option("--engine", help="Engine preset (vllm)."),
    ))  # fmt: skip


def _added(command: Command, options: tuple[Any, ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def plan_inputs(file: Path | None, options: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return demands, models, hardware and options of a file or of the options."""
    from dataclasses import replace

    from costsim.models.loader import load_model

    if (file is None) == (options["model"] is None):
        raise InputError("plan: give a file, or --model with --hardware and --rate")
    if file is not None:
        from costsim.library import find
        from costsim.planning.plan import load_plan

        demands, hardware, settings = load_plan(find("plans", str(file)))
    else:
        demands, hardware, settings = _from_options(options)
    changes: dict[str, Any] = {
        field: options[name] for name, field in _NAMES.items() if options[name] is not None
    }
    if options["provider"] or options["region"]:
        of = (options["provider"], options["region"])
        changes["providers"] = {h.name: of for h in hardware}
    prices, factors = _prices(options["prices"], hardware, settings)
    uncertain = dict(settings.uncertain) | factors | _varied(options["vary"])
    settings = replace(settings, check=options["check"], prices=prices, uncertain=uncertain,
                       **changes)  # fmt: skip
    return demands, {d.model: load_model(d.model) for d in demands}, hardware, settings


def _from_options(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    from dataclasses import replace

    from costsim.hardware.loader import load_hardware
    from costsim.planning.distributions import split
    from costsim.planning.plan_options import PlanOptions
    from costsim.planning.targets import Target
    from costsim.planning.workload import demand_of

    if not options["hardware"]:
        raise InputError("plan: --hardware is needed, such as --hardware h100_sxm,h200_sxm")
    traffic, growth = _traffic(options)
    pairs = [item.partition(":") for item in options["hardware"].split(",")]
    limits = {name: _number(limit, "--hardware limit") for name, _, limit in pairs if limit}
    kind = "_p99_s" if options["tails"] else "_s"
    target = Target(**{f"{n}{kind}": options[n] or math.inf for n in ("ttft", "tpot")})
    isl, prompts = split(options["isl"], "--isl")
    osl, answers = split(options["osl"], "--osl")
    demand = demand_of(traffic, options["model"], target=target, isl=isl, osl=osl)
    if options["prefix_hits"] is not None:
        demand = replace(demand, prefix_hit_share=options["prefix_hits"])
    factors = {"traffic growth": growth, "prompt length": prompts, "answer length": answers}
    settings = PlanOptions(
        terms=tuple(options["terms"].split(",")), limits=limits,
        uncertain={k: v for k, v in factors.items() if v is not None},
    )  # fmt: skip
    return [demand], [load_hardware(name) for name, _, _ in pairs], settings


def _traffic(options: dict[str, Any]) -> tuple[Any, Any]:
    """Return a trace's path or rates, and the factor on them that is uncertain."""
    from costsim.planning.distributions import range_of, split

    if sum(options[n] is not None for n in ("rate", "trace", "users")) != 1:
        raise InputError("plan: give --rate or --trace, or --users")
    if options["trace"] is not None:
        return options["trace"], None
    if options["users"] is not None:
        return options["users"] * options["per_user"] / 3600.0, None
    if ".." in options["rate"]:
        return split(range_of(options["rate"], "plan: --rate"), "--rate")
    return [_number(r, "--rate") for r in options["rate"].split(",")], None


def _prices(given: tuple[str, ...], hardware: Any, settings: Any) -> tuple[Any, dict[str, Any]]:
    """Return $/h by hardware and term with those of --price, and the factors that are uncertain."""
    from costsim.errors import unknown_name
    from costsim.planning.distributions import range_of, split

    prices = {name: dict(terms) for name, terms in settings.prices.items()}
    factors, known = {}, [h.name for h in hardware]
    for text in given:
        what, equals, value = text.partition("=")
        name, _, term = what.partition(":")
        term = term or "on_demand"
        if not equals or name not in known:
            raise unknown_name("hardware of --price", name, known)
        if term not in _TERMS:
            raise unknown_name("term of --price", term, _TERMS)
        usd, factor = split(range_of(value, f"plan: --price {what}"), f"--price {what}")
        if not usd > 0:
            raise InputError(f"plan: --price {text}: must be above zero")
        prices.setdefault(name, {})[term] = usd
        if factor is not None:
            factors[f"{term} price of {name}"] = factor
    return prices, factors


def _varied(given: tuple[str, ...]) -> dict[str, Any]:
    """Return the distributions of --vary by input."""
    from costsim.planning.distributions import range_of

    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"plan: --vary '{text}': must be NAME=LOW..HIGH")
        found[name.strip()] = range_of(value, f"plan: --vary {name}")
    return found


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"plan: {what} '{text}': must be a number") from None
