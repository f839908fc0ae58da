"""`tlcore runs`, `tlcore runs show RUN`, `tlcore runs open RUN`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tlcore_flows.cli_errors import print_json
from tlcore_flows.cli_tables import console, print_run, table, value_of

if TYPE_CHECKING:
    from tlcore.stages.runs import RunState
    from tlcore.store import Store

__all__ = ["apps"]

_runs = typer.Typer(add_completion=False, help="List runs, show one, open its card.")
apps = {"runs": _runs}

_Run = Annotated[
    str, typer.Argument(metavar="RUN", help='A run id or its beginning; "last" is the newest complete run.')
]
_Place = Annotated[
    str | None,
    typer.Option("--store", metavar="PLACE", help="Run store (default: $TLCORE_HOME, else .tlcore)"),
]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _store(given: str | None) -> Store:
    """The store to look at; it is not made. Of a shared one, this machine's folder: runs stay where they ran."""
    from tlcore.store import Store

    return Store(Store.local_root(given))


@_runs.callback(invoke_without_command=True)
def _list(
    context: typer.Context, store: _Place = None, as_json: _AsJson = False, debug: _Debug = False
) -> None:
    """List runs, show one, open its card."""
    if context.invoked_subcommand is not None:
        context.obj = (store, as_json)
        return
    from tlcore.stages.runs import list_runs

    place = _store(store)
    found = list_runs(place)
    if as_json:
        print_json({"runs": [run.model_dump(mode="json") for run in found]})
        return
    if not found:
        console().print(Text(f"no runs in {place.root}"), soft_wrap=True)
        return
    head = "test accuracy" if {run.measure for run in found} == {"accuracy"} else "test"
    made = table("run", "name", "state", head, "chosen", "when (UTC)", right=(head,))
    colours = {"completed": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}
    for run in found:
        chosen = ", ".join(filter(None, (run.candidate, run.strategy)))
        made.add_row(
            Text(run.run_id),
            Text(run.name),
            Text(run.state, style=colours[run.state]),
            _tested(run, named=head == "test"),
            Text(chosen or (run.error or "").partition("\n")[0]),
            Text(run.created[:16].replace("T", " ")),
        )
    console().print(made)


def _tested(run: RunState, *, named: bool) -> str:
    from tlcore.report.measure import measure_in

    if run.accuracy is None:
        return ""
    return f"{run.measure} " * named + value_of(measure_in(run.measure), run.accuracy)


@_runs.command("show")
def _show(
    context: typer.Context, run: _Run, store: _Place = None, as_json: _AsJson = False, debug: _Debug = False
) -> None:
    """Show what a run found."""
    from tlcore.stages.runs import read_run

    group_store, group_json = context.obj
    record = read_run(_store(store or group_store), run)
    if as_json or group_json:
        from tlcore.report.document import run_document

        print_json(run_document(record))
    else:
        print_run(record)


@_runs.command("open")
def _open(context: typer.Context, run: _Run = "last", store: _Place = None, debug: _Debug = False) -> None:
    """Open a run's card in the browser, and print its path."""
    from tlcore.stages.runs import read_run

    record = read_run(_store(store or context.obj[0]), run)
    typer.echo(record.card)
    if sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ):
        typer.launch(record.card)
