"""What a person sees while a run goes on: terminal lines, Prefect artifacts, and the observers of plugins.

    with observe.on_terminal(verbose=False):              # the command line
        with observe.run(run_id, name, root):             # a flow: observers learn of start and end
            stage(job, store=root)                        # every stage reports by itself

Nothing in here ends a run: an artifact or observer that fails is logged and forgotten.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlcore.errors import TlcoreError
from tlcore.report.gap import gap_line
from tlcore.stages.base import Progress, StageJob, StageResult
from tlcore.store import Store
from tlcore.values import DomainGap
from tlcore_flows import artifacts
from tlcore_flows.opened import open_registry
from tlcore_flows.terminal import Terminal

if TYPE_CHECKING:
    from tlcore.values import Json

__all__ = ["on_terminal", "progress", "run", "stage"]

PROGRESS_EVERY_SECONDS = 5.0
"""Least time between two updates of a progress artifact: each costs a request to the server."""


@dataclass(frozen=True)
class _Run:
    id: str
    name: str
    root: Path

    @property
    def document(self) -> dict[str, Json]:
        return {"id": self.id, "name": self.name, "store": str(self.root)}


_RUN: ContextVar[_Run | None] = ContextVar("tlcore_run", default=None)
_TERMINAL: ContextVar[Terminal | None] = ContextVar("tlcore_terminal", default=None)


@contextlib.contextmanager
def on_terminal(*, verbose: bool = False) -> Iterator[Terminal]:
    """Show stages on stderr: a live line where it is a terminal, one line per stage otherwise."""
    with Terminal.open(verbose=verbose) as terminal:
        token = _TERMINAL.set(terminal)
        try:
            yield terminal
        finally:
            _TERMINAL.reset(token)


@contextlib.contextmanager
def run(run_id: str, name: str, root: Path) -> Iterator[None]:
    """A run: its stages belong to it, and the observers of plugins learn of its start and its end."""
    this = _Run(run_id, name, root)
    token = _RUN.set(this)
    _notify(root, "tlcore_run_started", run=this.document)
    error: str | None = "interrupted"
    try:
        yield
        error = None
    except TlcoreError as failure:
        error = failure.what
        raise
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        outcome = {"state": "failed" if error else "completed", "error": error}
        _notify(root, "tlcore_run_finished", run=this.document, outcome=outcome)
        _RUN.reset(token)


@contextlib.contextmanager
def stage(job: StageJob, store: Store) -> Iterator[Callable[[StageResult], None]]:
    """One stage: it is shown as it runs; the yielded function tells of its result."""
    terminal = _TERMINAL.get()
    if terminal is not None:
        terminal.started(job.label)
    finished = False

    def report(result: StageResult) -> None:
        nonlocal finished
        finished = True
        if terminal is not None:
            terminal.finished(job.label, result.seconds, result.cached)
            if job.stage == "gap":  # what a person wants to know before the adapters train
                terminal.say(f"  {gap_line(store.read(result.ref, DomainGap))}")
        current = _RUN.get()
        if current is not None:
            document = {
                "name": job.stage,
                "subject": job.subject,
                "seconds": result.seconds,
                "cached": result.cached,
            }
            _notify(store.root, "tlcore_stage_finished", run=current.document, stage=document)
        artifacts.publish(job, result, store)

    try:
        yield report
    finally:
        if terminal is not None and not finished:
            terminal.stopped(job.label)


def progress(job: StageJob) -> Progress:
    """What a stage calls as its work goes on: the terminal's line now, the progress artifact now and then."""
    terminal = _TERMINAL.get()
    last = time.monotonic()
    artifact = artifacts.ProgressArtifact(job.label)

    def show(done: int, total: int, text: str = "") -> None:
        nonlocal last
        if terminal is not None:
            terminal.advanced(job.label, done, total, text)
        if total > 0 and time.monotonic() - last >= PROGRESS_EVERY_SECONDS:
            last = time.monotonic()
            artifact.update(100 * done / total, text)

    return show


def _notify(root: Path, hook: str, **arguments: Json) -> None:
    open_registry(root).notify(hook, **arguments)
