"""``costsim scenario list|show|validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import complete_scenario, emit, output_options


@click.group("scenario")
def command() -> None:
    """Scenarios: list them, show one, check a file.

    Example: costsim scenario validate scenarios/arrakis.toml
    """


@command.command("list")
@output_options
def list_all(as_json: bool, output: Path | None) -> None:
    """List every scenario with its question.

    Example: costsim scenario list
    """
    from costsim.planning.scenario import list_scenarios, load_scenario
    from costsim.reports.tables import plain_table

    found = [load_scenario(name) for name in list_scenarios()]
    data = [{"name": s.name, "title": s.title, "question": s.question} for s in found]
    emit(data, lambda: plain_table("Scenarios", ("name", "title", "question"),
                                   [list(d.values()) for d in data], left=3),
         as_json, output, "scenarios")


def _data(name: str) -> dict[str, Any]:
    from costsim.planning.run import sizes
    from costsim.planning.scenario import load_scenario

    s = load_scenario(name)
    return {
        "name": s.name, "title": s.title, "question": s.question, "source": s.source,
        "engine": s.engine, "baseline": s.baseline,
        "models": [{"key": m.key, "title": m.title, "provenance": m.model.provenance,
                    "total_parameters": sizes(m)[0], "active_parameters": sizes(m)[1]}
                   for m in s.models],
        "hardware": [{"name": h.key, "limit": h.limit, "price": h.price} for h in s.hardware],
        "workloads": [{"key": w.key, "isl": w.isl, "osl": w.osl, "target": str(w.target)}
                      for w in s.workloads],
    }


@command.command("show")
@click.argument("name", shell_complete=complete_scenario)
@output_options
def show(name: str, as_json: bool, output: Path | None) -> None:
    """Show what a scenario combines.

    Example: costsim scenario show arrakis
    """
    data = _data(name)
    emit(data, lambda: _sheet(data), as_json, output, "scenario")


def _sheet(data: dict[str, Any]) -> Any:
    from rich.console import Group

    from costsim.reports.tables import mark, plain_table
    from costsim.units import format_quantity

    models = [[m["key"], mark(m["title"], m["provenance"]),
               format_quantity(m["total_parameters"], "count"),
               format_quantity(m["active_parameters"], "count")] for m in data["models"]]
    return Group(
        f"{data['title']}\n{data['question']}\n",
        plain_table("Models", ("key", "title", "total", "active"), models, left=2),
        plain_table("Hardware", ("name", "at most", "price"),
                    [list(h.values()) for h in data["hardware"]]),
        plain_table("Workloads", ("key", "tokens in", "out", "target"),
                    [list(w.values()) for w in data["workloads"]]),
    )


@command.command("validate")
@click.argument("name", shell_complete=complete_scenario)
@output_options
def validate(name: str, as_json: bool, output: Path | None) -> None:
    """Check a scenario file: every key, name and number.

    Example: costsim scenario validate my-scenario.toml
    """
    from rich.text import Text

    data = _data(name)
    sentence = (f"{name}: valid; {len(data['models'])} models on {len(data['hardware'])} "
                f"accelerators for {len(data['workloads'])} workloads")
    emit({"valid": True, **data}, lambda: Text(sentence), as_json, output, "scenario")
