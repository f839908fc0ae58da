"""`tlcore run` and `tlcore rank`."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcore.config import RunConfig, parse_config
from tlcore.errors import UserError
from tlcore.registry import Registry
from tlcore.store import Store
from tlcore.store_remote import is_url
from tlcore.values import Ranking, RunRecord
from tlcore_flows import cli_flags, devices, recall, runners, server, strategies
from tlcore_flows.cli_errors import print_json
from tlcore_flows.opened import open_registry, open_store
from tlcore_flows.terminal import Terminal

__all__ = ["AsJson", "Debug", "StorePlace", "Verbose", "apps", "flows", "store_place"]

_RunFile = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN.toml]", help="Run file; flags override it.", show_default=False),
]
_AllowDownload = Annotated[
    bool,
    typer.Option(
        "--allow-download",
        help="Let timm models fetch weights from the hub; without it only what the local hub cache holds.",
        rich_help_panel=cli_flags.MODELS,
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any option of a run file, with a TOML value: --set evaluation.replicates=200 (repeatable)",
        rich_help_panel=cli_flags.GENERAL,
        show_default=False,
    ),
]
StorePlace = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PLACE",
        help="Run store: results, cache, and what a killed run resumes from. A folder, or a URL that machines share "
        "(s3://BUCKET/FOLDER). Default: $TLCORE_HOME, else .tlcore",
        rich_help_panel=cli_flags.GENERAL,
        show_default=False,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=cli_flags.GENERAL),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Show the log of Prefect too.", rich_help_panel=cli_flags.GENERAL),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show tracebacks, and all of Prefect's log.", rich_help_panel=cli_flags.GENERAL
    ),
]
_Figures = Annotated[
    Path | None,
    typer.Option(
        "--figures",
        metavar="FOLDER",
        help="Write the figures there as PNG: cost.png (quality against cost), intervals.png (places)",
        rich_help_panel=cli_flags.GENERAL,
        show_default=False,
    ),
]
_FRAME: dict[str, tuple[Any, Any]] = {
    "file": (_RunFile, None),
    "allow_download": (_AllowDownload, False),
    "settings": (_Settings, None),
    "store": (StorePlace, None),
    "figures": (_Figures, None),
    "as_json": (AsJson, False),
    "verbose": (Verbose, False),
    "debug": (Debug, False),
}
"""Parameters that are no option of RunConfig, with their defaults; figures: of `rank` alone, a run has its card."""


def _command(work: Callable[[Mapping[str, Any]], None], *, rank: bool, help: str) -> typer.Typer:
    """An app of one command whose parameters are the flags of RunConfig and those of the frame."""
    flags = cli_flags.parameters(rank=rank)
    frame = {name: kind for name, (kind, _) in _FRAME.items() if rank or name != "figures"}
    annotations = {"file": frame.pop("file"), **flags, **frame}

    def command(**given: Any) -> None:
        work(given)

    command.__annotations__ = annotations
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_FRAME[name][1] if name in _FRAME else None,
                annotation=kind,
            )
            for name, kind in annotations.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command(help=help)(command)
    return app


def _prepare(given: Mapping[str, Any], command: str) -> tuple[RunConfig, Path]:
    """The checked configuration and the store's root; nothing slow has been imported or started yet."""
    file: Path | None = given["file"]
    made = cli_flags.document(
        file, given, given["settings"] or (), allow_download=given["allow_download"], command=command
    )
    config = parse_config(made, where=str(file) if file is not None else "command line", command=command)
    place = store_place(given["store"])
    root = Store.local_root(place)
    # A mistake in the command leaves no store behind.
    strategies.check(config, open_registry(root) if root.is_dir() else Registry.discover(), command=command)
    server.quiet_environment(verbose=given["verbose"], debug=given["debug"])
    runners.check(config, open_store(place) if is_url(place) or root.is_dir() else Store(root))
    return config, open_store(place).root


def store_place(given: str | None) -> str:
    """The run store to use, a folder or a URL: --store, else $TLCORE_HOME, else .tlcore here."""
    place = given or os.environ.get("TLCORE_HOME") or ".tlcore"
    return place if is_url(place) else str(Store.local_root(place))


@contextlib.contextmanager
def flows(root: Path, *, verbose: bool, debug: bool, device: str = "cpu") -> Iterator[Terminal]:
    """In here flows can be called: progress goes to stderr, there is a Prefect server, flows find the store.

    Raises:
        UserError: this machine lacks the device.
    """
    from tlcore_flows import observe

    os.environ["TLCORE_HOME"] = str(root)
    # Threads that spin while they wait cost a busy machine far more than they save: training steps of small
    # networks took 10 to 60 times as long beside other work. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    server.quiet_environment(verbose=verbose, debug=debug)
    devices.check(device)
    with (
        contextlib.redirect_stdout(sys.stderr),  # whatever a library prints, stdout carries the result alone
        observe.on_terminal(verbose=verbose or debug) as terminal,
        server.session(root, say=terminal.say, preload=_preload),
    ):
        if not debug:
            server.without_tracebacks()
        yield terminal


def _preload() -> None:
    """What a run needs and takes seconds to import, while the server starts on the other core."""
    import timm  # noqa: F401
    import torch  # noqa: F401

    import tlcore_flows.transfer  # noqa: F401


def _device(config: RunConfig) -> str:
    """The device that this machine must have; a cluster elsewhere has devices of its own."""
    return config.device if config.compute.address is None else "cpu"


def _run(given: Mapping[str, Any]) -> None:
    config, root = _prepare(given, "run")
    with flows(root, verbose=given["verbose"], debug=given["debug"], device=_device(config)):
        from tlcore_flows.transfer import transfer

        document = transfer(config)
    record = RunRecord.model_validate(document)
    if given["as_json"]:
        from tlcore.report.document import run_document

        print_json(run_document(record))
    else:
        from tlcore_flows import cli_tables

        cli_tables.print_run(record)


def _rank(given: Mapping[str, Any]) -> None:
    config, root = _prepare(given, "rank")
    folder: Path | None = given["figures"].expanduser() if given["figures"] is not None else None
    if folder is not None:
        with _writing_figures(folder):
            folder.mkdir(parents=True, exist_ok=True)
    # With a server of the user's own the flow runs each time, to be seen there.
    key = None if server.has_server() else recall.address(config, open_registry(root), root)
    ranking = recall.find(root, key)
    if ranking is not None:
        typer.echo("  rank    cached: no file has changed since it was made", err=True)
    else:
        with flows(root, verbose=given["verbose"], debug=given["debug"], device=_device(config)):
            from tlcore_flows.rank import rank

            ranking = Ranking.model_validate(rank(config))
    written: tuple[Path, ...] = ()
    if folder is not None:
        from tlcore.report.ranking_figures import write_figures

        with _writing_figures(folder):
            written = write_figures(ranking, folder)
    if given["as_json"]:
        from tlcore.report.document import ranking_document

        print_json(ranking_document(ranking))
    else:
        from tlcore_flows import cli_tables

        cli_tables.print_ranking(ranking)
        for path in written:
            typer.echo(f"figure  {path}")


@contextlib.contextmanager
def _writing_figures(folder: Path | None) -> Iterator[None]:
    """In here a folder that cannot be made or written is the caller's mistake."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the figures cannot be written: {error.strerror or error}",
            where=f"--figures {folder}",
            hint="name a folder that you may write",
        ) from None


apps: dict[str, typer.Typer] = {
    "run": _command(
        _run,
        rank=False,
        help="Images in; a proven ONNX model and the evidence for every choice out.\n\n"
        "A strategy is named NAME or NAME:key=value,key=value; see `tlcore plugins`. Killed or interrupted, the "
        "same command goes on where it stopped.",
    ),
    "rank": _command(
        _rank,
        rank=True,
        help="Rank source models by measured transferability, and stop there.\n\nNothing is trained.",
    ),
}
