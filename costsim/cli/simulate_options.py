"""Options of ``costsim simulate``, and the table of a fleet file that they stand for."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from costsim.cli.options import PositiveNumber, Seconds
from costsim.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])
WHOLE, NUMBER, TIME = PositiveNumber(whole=True), PositiveNumber(), Seconds()
FILE = click.Path(path_type=Path)

TRAFFIC = (
    click.option("--trace", type=FILE, help="Trace: Azure, BurstGPT, Mooncake, ShareGPT or "
                 "arrival_s,input_tokens,output_tokens."),
    click.option("--trace-format", type=click.Choice(
        ["auto", "azure", "burstgpt", "csv", "mooncake", "sharegpt"]), default="auto"),
    click.option("--sort", is_flag=True, help="Sort a trace whose times go back."),
    click.option("--traffic", "traffic_file", type=FILE,
                 help="TOML table of traffic (docs/serving.md) instead of these options."),
    click.option("--rate", type=NUMBER, help="Requests per second; rescales a trace."),
    click.option("--scale", type=NUMBER, help="Multiplies the rate."),
    click.option("--arrivals", type=click.Choice(["poisson", "gamma", "diurnal", "weekly"]),
                 help="Default: poisson, or those of the trace."),
    click.option("--cv", type=NUMBER, help="Variation of the gaps of gamma arrivals."),
    click.option("--requests", type=WHOLE, help="How many requests; default 1000, or the trace."),
    click.option("--duration", type=TIME, help="Arrivals up to this time."),
    click.option("--users", type=WHOLE, help="Closed loop of so many users."),
    click.option("--think", type=TIME, default=0.0, help="Mean think time of a user."),
    click.option("--turns", type=WHOLE, help="Turns of each session, its context growing."),
    click.option("--length-cv", type=PositiveNumber(zero=True), default=0.0,
                 help="Variation of generated lengths."),
    click.option("--timeout", type=TIME, help="After which a request is given up."),
)
FLEET = (
    click.option("--replicas", type=WHOLE, default=1, show_default=True),
    click.option("--prefill", type=WHOLE, help="Prefill replicas, beside --decode ones."),
    click.option("--decode", type=WHOLE, help="Decode replicas, beside --prefill ones."),
    click.option("--router", default="least_outstanding", show_default=True),
    click.option("--policy", help="Scheduler: vllm, stall_free, prefill_first, orca, static."),
    click.option("--max-num-seqs", type=WHOLE, help="Requests that run at once."),
    click.option("--max-num-batched-tokens", type=WHOLE, help="Tokens of a step."),
    click.option("--prefix-cache/--no-prefix-cache", default=None,
                 help="Reuse the cache of equal prefixes; default: as the engine does."),
    click.option("--autoscale", metavar="LEAST:MOST", help="Scale between so many replicas."),
    click.option("--mtbf", type=TIME, help="Mean time between failures of a node of 8."),
    click.option("--mttr", type=TIME, help="Mean time to repair it; default 10 min."),
    click.option("--set", "changes", multiple=True, metavar="KEY=VALUE",
                 help="Any key of a fleet file, such as pools.default.autoscaler.most=8."),
)
RUN = (
    click.option("--seed", type=click.IntRange(0), help="Default 0."),
    click.option("--replications", type=WHOLE, help="Runs with further seeds; default 1."),
    click.option("--processes", type=WHOLE, default=1, show_default=True,
                 help="Replications that run at once."),
    click.option("--warmup", type=TIME, help="Time to leave out of the figures."),
    click.option("--until", type=TIME, help="Simulated time at which to stop."),
    click.option("--sample", type=TIME, help="Distance of the timelines' samples; default: 1 s."),
    click.option("--reject-oversize", is_flag=True,
                 help="Reject requests that are too long, instead of stopping."),
    click.option("--steps", is_flag=True, help="Take every step (the slow oracle)."),
    click.option("--allow-overload", is_flag=True, help="Simulate a load above the capacity."),
    click.option("--time-limit", type=TIME, help="Stop after so much wall-clock time."),
    click.option("--checkpoint", type=FILE, help="File to save the run in, and to go on from."),
    click.option("--invariants", is_flag=True, help="Check conservation after every event."),
    click.option("--table", type=click.Choice(["csv", "parquet"]), default="csv",
                 show_default=True, help="Format of requests and timelines in --output."),
)


def simulate_options(command: Command) -> Command:
    """Add the options of traffic, fleet and run."""
    for option in reversed((*TRAFFIC, *FLEET, *RUN)):
        command = option(command)
    return command


def refuse_unused(context: click.Context, options: dict[str, Any]) -> None:
    """Raise InputError where an option was given that another one leaves without effect."""
    lengths, loop = {"isl", "osl", "length_cv"}, {"users", "think", "turns"}
    classes = {"ttft", "tpot", "timeout"}
    mine = {parameter.name for parameter in context.command.params}
    kept = {"fleet", "seed", "replications", "processes", "warmup", "until", "sample", "steps",
            "reject_oversize", "allow_overload", "time_limit", "checkpoint", "invariants", "table",
            "changes", "as_json", "output", "model", "hardware"}  # fmt: skip
    rules = {
        "fleet": mine - kept, "trace": lengths | {"users"},
        "traffic_file": lengths | loop | classes | {"trace", "trace_format", "sort", "arrivals"},
    }  # fmt: skip
    for name, unused in rules.items():
        for other in sorted(unused if options[name] is not None else ()):
            if context.get_parameter_source(str(other)) is ParameterSource.COMMANDLINE:
                one, two = (_flag(context, str(n)) for n in (other, name))
                raise InputError(f"simulate: {one} has no effect with {two}; --set KEY=VALUE sets "
                                 "a key of the fleet or its traffic")


def _flag(context: click.Context, name: str) -> str:
    return next(p.opts[0] for p in context.command.params if p.name == name)


def fleet_table(model: str | None, hardware: str | None, options: dict[str, Any]
                ) -> tuple[dict[str, Any], Path]:
    """Return the table of a fleet file that options stand for, and its folder."""
    from costsim import loading

    path: Path | None = options["fleet"]
    if path is not None:
        if model or hardware:
            raise InputError("simulate: --fleet takes the place of MODEL and HARDWARE")
        table, folder = loading.read_toml(path), path.parent
    elif not model or not hardware:
        raise InputError("simulate: MODEL and HARDWARE are needed, or --fleet FILE")
    else:
        table, folder = _one_pool(model, hardware, options), Path()
    _run_keys(table, options)
    for change in options["changes"]:
        _set(table, change)
    return table, folder


def _run_keys(table: dict[str, Any], options: dict[str, Any]) -> None:
    for key, name in (("seed", "seed"), ("replications", "replications"), ("warmup_s", "warmup"),
                      ("until_s", "until"), ("sample_s", "sample")):  # fmt: skip
        if options[name] is not None:
            table[key] = options[name]
    if options["output"] is not None:
        table.setdefault("sample_s", 1.0)
    for key, name, value in (("oversize", "reject_oversize", "reject"), ("mode", "steps", "steps"),
                             ("allow_overload", "allow_overload", True),
                             ("invariants", "invariants", True)):  # fmt: skip
        if options[name]:
            table[key] = value


def _one_pool(model: str, hardware: str, options: dict[str, Any]) -> dict[str, Any]:
    entry = {"model": model, "hardware": hardware, "count": options["replicas"],
             "engine": options["engine"], "price": options["price"]}  # fmt: skip
    for name in ("tp", "pp", "ep", "dp", "cp", "precision", "kv"):
        if options[name] is not None:
            entry[name] = options[name]
    rules = {name: options[name] for name in ("policy", "max_num_seqs", "max_num_batched_tokens")
             if options[name]}  # fmt: skip
    if options["prefix_cache"] is not None:
        rules["prefix_cache"] = options["prefix_cache"]
    entry["scheduler"] = rules
    pool: dict[str, Any] = {"router": options["router"], "traffic": traffic_table(options)}
    if options["autoscale"]:
        pool["autoscaler"] = _autoscaler(options["autoscale"])
    table: dict[str, Any] = {"replicas": _roles(entry, options), "pools": {"default": pool}}
    if options["mtbf"]:
        table["failures"] = {"mtbf_s": options["mtbf"], "mttr_s": options["mttr"] or 600.0}
    return table


def _roles(entry: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    if not options["prefill"] and not options["decode"]:
        return [entry]
    if not options["prefill"] or not options["decode"]:
        raise InputError("simulate: --prefill and --decode go together")
    return [entry | {"role": role, "count": options[role]} for role in ("prefill", "decode")]


def _autoscaler(text: str) -> dict[str, int]:
    least, _, most = text.partition(":")
    try:
        return {"least": int(least), "most": int(most)}
    except ValueError:
        raise InputError(f"--autoscale {text}: LEAST:MOST is expected, such as 1:8") from None


def traffic_table(options: dict[str, Any]) -> dict[str, Any]:
    """Return the traffic's table."""
    from costsim import loading

    path = options["traffic_file"]
    if path is not None:
        table = loading.read_toml(path)
        if table.get("trace"):
            table["trace"] = str(path.parent.resolve() / str(table["trace"]))
        return table | _changes(options)
    table = _trace(options) if options["trace"] is not None else _generated(options)
    return table | _changes(options) | _class(options) | _sessions(options)


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that options set in traffic of any origin."""
    names = {"rate": "rate", "scale": "scale", "cv": "cv", "requests": "requests",
             "duration_s": "duration"}  # fmt: skip
    return {key: options[name] for key, name in names.items() if options[name]}


def _trace(options: dict[str, Any]) -> dict[str, Any]:
    table = {"trace": str(options["trace"]), "format": options["trace_format"],
             "sort": options["sort"]}  # fmt: skip
    if options["arrivals"]:
        table["arrivals"] = options["arrivals"]
    return table


def _generated(options: dict[str, Any]) -> dict[str, Any]:
    if not options["rate"] and not options["users"]:
        raise InputError("simulate needs --trace, --traffic, --rate or --users")
    table = {"input_tokens": round(options["isl"]), "output_tokens": round(options["osl"]),
             "length_cv": options["length_cv"]}  # fmt: skip
    if options["rate"]:
        table["arrivals"] = options["arrivals"] or ("gamma" if options["cv"] else "poisson")
    if not options["requests"] and not options["duration"]:
        table["requests"] = 1000
    return table


def _sessions(options: dict[str, Any]) -> dict[str, Any]:
    users, turns = options["users"], options["turns"]
    if not users and not turns:
        return {}
    rules: dict[str, Any] = {"think_s": options["think"]}
    if users:
        rules["users"] = users
    if turns:
        rules |= {"turns": turns, "prompt_tokens": round(options["isl"])}
    else:
        rules["grows"] = False
        if not options["duration"]:
            rules["turns"] = -(-(options["requests"] or 1000) // users)
    return {"sessions": rules}


def _class(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"ttft_s": options["ttft"], "tpot_s": options["tpot"],
                             "timeout_s": options["timeout"]}  # fmt: skip
    given = {name: value for name, value in found.items() if value}
    return {"classes": [{"name": "all", **given}]} if given else {}


def _set(table: dict[str, Any], change: str) -> None:
    """Set one key of a nested table, given as ``a.b.0.c=VALUE``."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {change}: KEY=VALUE is expected")
    at: Any = table
    *path, last = key.strip().split(".")
    for name in path:
        at = _child(at, name, change)
    if isinstance(at, list):
        _child(at, last, change)
        at[int(last)] = _value(text)
    else:
        at[last] = _value(text)


def _child(at: Any, name: str, change: str) -> Any:
    if isinstance(at, dict):
        return at.setdefault(name, {})
    if isinstance(at, list) and name.isdigit() and int(name) < len(at):
        return at[int(name)]
    raise InputError(f"--set {change}: there is no '{name}'; entries of lists have numbers from 0")


def _value(text: str) -> Any:
    """Return a TOML value, or the text as it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
