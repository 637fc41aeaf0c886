"""The command line: one module a command, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

# Command -> (module, one line of help). A new command is one line here and one module.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run a scenario: tables, figures, data and one HTML report."),
    "estimate": ("estimate", "Latency, throughput and cost of one operating point."),
    "compare": ("compare", "Two or more deployments side by side, and where they change places."),
    "whatif": ("whatif", "Vary any field and see what it does."),
    "simulate": ("simulate", "A trace or a generator through the discrete-event model."),
    "plan": ("plan", "The cheapest fleet that serves a traffic within its targets."),
    "prices": ("prices", "Rents by provider, region and term, purchase, ownership, APIs."),
    "sparsity": ("sparsity", "Does sparsity pay: laws, fits of own runs, life cost."),
    "train": ("train", "What a training run costs, how long it takes, and its MFU."),
    "explain": ("explain", "Why a result is what it is, and what would change it most."),
    "calibrate": ("calibrate", "Measure kernels here, or fit measurements, and save the result."),
    "validate": ("validate", "Predicted against measured."),
    "hardware": ("hardware", "Accelerators: list, show."),
    "model": ("model", "Models: list, show, import."),
    "scenario": ("scenario", "Scenarios: list, show, validate."),
    "plot": ("plot", "Draw the figures of a scenario, and nothing else."),
    "completion": ("completion", "Print the shell's completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"costsim.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for one that does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from costsim.errors import unknown_name

            raise click.UsageError(str(unknown_name("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="costsim")
def cli() -> None:
    """What an LLM query costs, how fast it is, and how many machines carry the traffic.

    Example: costsim run scenarios/arrakis.toml
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line; mistakes of the user are one line and exit code 2."""
    from costsim.errors import CostsimError

    try:
        code = cli.main(args=args, prog_name="costsim", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as mistake:
        click.echo(f"costsim: {mistake.format_message()}", err=True)
        sys.exit(2)
    except CostsimError as mistake:
        click.echo(f"costsim: {mistake}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("costsim: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as mistake:
        where = mistake.filename or "file"
        click.echo(f"costsim: {where}: {mistake.strerror or mistake}", err=True)
        sys.exit(2)
