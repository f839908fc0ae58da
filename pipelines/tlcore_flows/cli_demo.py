"""`tlcore demo`."""

from __future__ import annotations

import time

import typer
from rich.text import Text

from tlcore.values import RunRecord
from tlcore_flows import cli_run, demo
from tlcore_flows.cli_errors import print_json
from tlcore_flows.cli_tables import console, print_run
from tlcore_flows.opened import open_registry, open_store

__all__ = ["apps"]

_demo = typer.Typer(add_completion=False)
apps = {"demo": _demo}


@_demo.command()
def _command(
    store: cli_run.StorePlace = None,
    as_json: cli_run.AsJson = False,
    verbose: cli_run.Verbose = False,
    debug: cli_run.Debug = False,
) -> None:
    """The main job on handwritten digits, with models that are trained here: no hub, no server, no download.

    First transfer from ten labelled scans a class, then adaptation from rendered to handwritten digits without
    a label. A second time everything is found again.
    """
    started = time.monotonic()
    root = open_store(cli_run.store_place(store)).root
    open_registry(root)
    folder = root / "demo"
    records: list[RunRecord] = []
    with cli_run.flows(root, verbose=verbose, debug=debug) as terminal:
        demo.prepare(folder, terminal.say)
        from tlcore_flows.transfer import transfer

        configs = (demo.transfer_config(folder), demo.adaptation_config(folder))
        for number, config in enumerate(configs, 1):
            terminal.say(f"run {number} of {len(configs)}: {config.name}")
            records.append(RunRecord.model_validate(transfer(config)))
    if as_json:
        from tlcore.report.document import run_document

        print_json({"runs": [run_document(record) for record in records]})
        return
    for record in records:
        console().rule(Text(record.name), align="left")
        print_run(record)
    console().print(Text(f"\n{_summary(records)}; {time.monotonic() - started:.0f} s in all"))


def _summary(records: list[RunRecord]) -> str:
    stages = sum(len(record.seconds) for record in records)
    cached = sum(len(record.cached) for record in records)
    if cached == stages:
        return f"all {stages} stages were cached"
    return f"{cached} of {stages} stages were cached; the second time all are"
