"""``costsim completion``."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    Example: eval "$(costsim completion bash)"
    """
    from click.shell_completion import get_completion_class

    from costsim.cli import cli

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(cli, {}, "costsim", "_COSTSIM_COMPLETE").source())
