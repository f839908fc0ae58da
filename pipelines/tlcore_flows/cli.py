"""The command `tlcore`.

stdout carries results alone: tables for people, or with --json exactly one JSON document. Progress, log
and errors go to stderr. Commands are imported when they are called: `tlcore --help` needs neither torch
nor Prefect, nor even pydantic.

Exit codes: 0 done, 1 a failure, 2 a mistake of the caller's, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import tlcore
from tlcore.errors import TlcoreError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("cli_run", "Images in; a proven ONNX model and the evidence for it out."),
    "rank": ("cli_run", "Rank source models by measured transferability, and stop there."),
    "models": ("cli_models", "List source models with cost, licence and static prior; no image needed."),
    "predict": ("cli_predict", "Labels and probabilities for images, from an exported file alone."),
    "runs": ("cli_runs", "List runs, show one, open its card."),
    "plugins": ("cli_plugins", "List the installed strategies, or show one with its options."),
    "demo": ("cli_demo", "The main job on handwritten digits, with models trained here: no download."),
}
"""Command -> the module of this package that holds its `app`, and its line in `tlcore --help`."""

INTERRUPTED = 130

_SPEC = re.compile(r"[a-z0-9][a-z0-9-]+:.")


class _Lazy(TyperGroup):
    """Imports a command's module when the command is called, not when its name is listed."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        if self._listing:
            return TyperCommand(name=cmd_name, help=summary, callback=None)
        loaded = importlib.import_module(f"tlcore_flows.{module}")
        command = typer.main.get_command(loaded.apps[cmd_name])
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    cls=_Lazy,
    add_completion=False,
    rich_markup_mode=None if os.environ.get("TERM") == "dumb" else "rich",
    epilog="First steps: tlcore demo   or   tlcore run --data FOLDER --models local:FOLDER",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tlcore {tlcore.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _tlcore(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Transfer learning from a folder of images to a proven ONNX file, with the evidence for every choice."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = run(given)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _silence()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; every error is told once, without a traceback unless there is --debug."""
    from tlcore_flows import cli_errors

    tell = cli_errors.Teller(as_json="--json" in arguments, debug="--debug" in arguments)
    try:
        code = app(_spread_models(arguments), prog_name="tlcore", standalone_mode=False)
    except TlcoreError as error:
        return tell.known(error)
    except typer.TyperException as error:
        return tell.usage(error)
    except BrokenPipeError:
        return _silence()
    except (KeyboardInterrupt, typer.Abort):
        return tell.interrupted(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last place where a bug can be named
        return tell.bug(error)
    if code == INTERRUPTED:
        return tell.interrupted(INTERRUPTED)
    return code if isinstance(code, int) else 0


def _spread_models(arguments: list[str]) -> list[str]:
    """`--models A B` as `--models A --models B`: what follows and reads NAME:SPEC is one more model."""
    spread: list[str] = []
    in_models = False
    for argument in arguments:
        if in_models and spread[-1] != "--models" and _SPEC.match(argument):
            spread.append("--models")
        elif argument.startswith("-"):
            in_models = argument == "--models"
        elif spread and spread[-1] != "--models":
            in_models = False
        spread.append(argument)
    return spread


def _silence() -> int:
    """The reader of stdout went away (`tlcore runs | head -1`): not our failure, and nobody is left to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
