"""``costsim model list|show|import``."""

from __future__ import annotations

from pathlib import Path

import click

from costsim.cli.options import complete_model, emit, output_options


@click.group("model")
def command() -> None:
    """Models: list them, show one, import a Hugging Face config.json.

    Example: costsim model show deepseek-v3
    """


@command.command("list")
@output_options
def list_all(as_json: bool, output: Path | None) -> None:
    """List every model with total and active parameters.

    Example: costsim model list
    """
    from costsim.models.describe import describe
    from costsim.models.loader import list_models, load_model
    from costsim.reports.tables_model import model_table

    found = [describe(load_model(name)) for name in list_models()]
    emit(found, lambda: model_table(found), as_json, output, "models")


@command.command("show")
@click.argument("name", shell_complete=complete_model)
@output_options
def show(name: str, as_json: bool, output: Path | None) -> None:
    """Show layers by kind, parameters, KV bytes and FLOP per token, and what is left out.

    NAME is a model of the library, a TOML file, or a Hugging Face config.json.

    Example: costsim model show llama-3.1-70b
    """
    from costsim.models.describe import describe
    from costsim.models.loader import load_model
    from costsim.reports.tables_model import model_sheet

    data = describe(load_model(name))
    emit(data, lambda: model_sheet(data), as_json, output, "model")


@command.command("import")
@click.argument("config", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name in the library; default: the file's or folder's name.")
@output_options
def import_config(config: Path, name: str | None, as_json: bool, output: Path | None) -> None:
    """Import a Hugging Face config.json (file or folder) into your own library of models.

    Example: costsim model import ./my-model/config.json --name my-model
    """
    from rich.text import Text

    from costsim import library
    from costsim.errors import InputError
    from costsim.models.loader import load_model
    from costsim.models.writer import save_model

    model = load_model(str(config))
    stem = config.parent.name if config.name == "config.json" else config.stem
    name = name or stem
    if "/" in name or name.startswith("."):
        raise InputError(f"--name {name}: must be a plain name without slashes")
    path = save_model(model, library.user_home() / "models" / f"{name}.toml")
    lines = [f"imported: {path}", *(f"left out: {line}" for line in model.ignored)]
    data = {"name": name, "file": str(path), "left_out": list(model.ignored)}
    emit(data, lambda: Text("\n".join(lines)), as_json, output, "model")
