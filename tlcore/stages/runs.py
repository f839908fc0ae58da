"""Runs in the store: what was started, what was interrupted, what came out.

    ROOT/runs/RUN_ID/state.json    name, when, running | completed | failed, the configuration's key
    ROOT/runs/RUN_ID/run.json      the record, once the run is complete
    ROOT/runs/RUN_ID/card.html, model.onnx, config.json

A run holds the lock "run-RUN_ID" while it lives; a run that is "running" without it was interrupted. The
same configuration again takes an interrupted run up under its id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from tlcore.config import RunConfig
from tlcore.errors import GateError, TlcoreError, UnknownName, UserError
from tlcore.export.metadata import stamp_run_id
from tlcore.report.measure import measure_of
from tlcore.store import Store, content_key, write_text
from tlcore.values import Exported, RunRecord, Value

__all__ = ["OpenRun", "RunState", "list_runs", "open_run", "read_run"]

State = Literal["running", "interrupted", "completed", "failed"]


class RunState(Value):
    """One line of `tlcore runs`. accuracy: on test images; where labels are no classes their `measure`."""

    run_id: str
    name: str
    created: str
    state: State
    config_key: str
    error: str | None = None
    accuracy: float | None = None
    measure: str = "accuracy"
    candidate: str | None = None
    strategy: str | None = None
    resumed: int = 0


class OpenRun:
    """A run that is going on."""

    def __init__(self, store: Store, state: RunState) -> None:
        self.store, self.state = store, state
        self.folder = store.root / "runs" / state.run_id

    @property
    def run_id(self) -> str:
        return self.state.run_id

    def promote(self, model: Path, exported: Exported) -> Exported:
        """Copy a proven file into the run's folder, in one step, and say what it is there.

        Whoever changes the copy changes neither the cache nor another run. An ONNX file that an earlier run
        exported gets this run's id.

        Raises:
            GateError: the stored file is not the one that was proven.
        """
        if _sha256(model) != exported.sha256:
            raise GateError(
                "the stored model was changed after it was proven",
                where=str(model),
                hint=f"delete {model.parent} and run again",
            )
        part = self.folder / f".{exported.path}.part"
        shutil.copyfile(model, part)
        if exported.format == "onnx":
            stamp_run_id(part, self.run_id)
        digest, size = _sha256(part), part.stat().st_size
        part.replace(self.folder / exported.path)
        return exported.model_copy(update={"sha256": digest, "bytes": size})

    def complete(self, record: RunRecord, *, card: Path) -> RunRecord:
        """Put the card into the run's folder, then the record; the run is complete."""
        part = self.folder / ".card.html.part"
        shutil.copyfile(card, part)
        part.replace(self.folder / "card.html")
        write_text(self.folder / "run.json", record.model_dump_json(indent=1))
        self.state = self.state.model_copy(
            update={
                "state": "completed", "accuracy": record.metrics.score, "measure": measure_of(record.metrics).name,
                "candidate": record.chosen.candidate,
                "strategy": record.chosen.strategy,
            }
        )  # fmt: skip
        _write(self.folder, self.state)
        return record

    def fail(self, error: str) -> None:
        self.state = self.state.model_copy(update={"state": "failed", "error": error})
        _write(self.folder, self.state)


@contextlib.contextmanager
def open_run(store: Store, config: RunConfig) -> Iterator[OpenRun]:
    """Start a run, or take up the interrupted one of the same configuration; marked failed when the body raises."""
    document = config.document()
    key = content_key({"run": document})
    run_id, state = "", None
    for old in list_runs(store):
        if old.state == "interrupted" and old.config_key == key:
            run_id, state = (
                old.run_id,
                old.model_copy(update={"state": "running", "resumed": old.resumed + 1}),
            )
            break
    if state is None:
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        state = RunState(
            run_id=run_id,
            name=config.name,
            created=now.isoformat(timespec="seconds"),
            state="running",
            config_key=key,
        )
    lock = FileLock(store.root / "locks" / f"run-{run_id}.lock")
    try:
        lock.acquire(timeout=2)  # a listing holds it for a moment
    except Timeout:
        raise UserError(f"run {run_id} is going on in another process", hint="tlcore runs") from None
    try:
        folder = store.root / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps(document, indent=1))
        _write(folder, state)
        run = OpenRun(store, state)
        try:
            yield run
        except TlcoreError as error:
            run.fail(error.what)
            raise
        except Exception as error:
            run.fail(f"{type(error).__name__}: {error}")
            raise
    finally:
        lock.release()


def list_runs(store: Store) -> list[RunState]:
    """All runs, newest first."""
    found = []
    for path in sorted((store.root / "runs").glob("*/state.json"), reverse=True):
        try:
            state = RunState.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a folder somebody else put there
        if state.state == "running" and not _held(store, state.run_id):
            state = state.model_copy(update={"state": "interrupted"})
        found.append(state)
    return found


def read_run(store: Store, run_id: str) -> RunRecord:
    """The record of a complete run; any unambiguous beginning of the id will do, "last" is the newest complete one.

    Raises:
        UserError: no such run, an ambiguous beginning, or a run without a result.
    """
    runs = list_runs(store)
    if run_id == "last":
        runs = [run for run in runs if run.state == "completed"][:1]
        if not runs:
            raise UserError("no run is complete yet", hint="tlcore runs")
        chosen = runs[0]
    else:
        chosen_ones = [run for run in runs if run.run_id == run_id] or [
            run for run in runs if run.run_id.startswith(run_id)
        ]
        if not chosen_ones:
            raise UnknownName("run", run_id, [run.run_id for run in runs], hint="tlcore runs")
        if len(chosen_ones) > 1:
            raise UserError(f'"{run_id}" begins several runs', choices=[run.run_id for run in chosen_ones])
        chosen = chosen_ones[0]
    path = store.root / "runs" / chosen.run_id / "run.json"
    if not path.is_file():
        reason = f": {chosen.error}" if chosen.error else ""
        raise UserError(
            f"run {chosen.run_id} is {chosen.state}{reason}",
            hint="the same `tlcore run` command goes on where it stopped",
        )
    return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(folder: Path, state: RunState) -> None:
    write_text(folder / "state.json", state.model_dump_json(indent=1))


def _held(store: Store, run_id: str) -> bool:
    lock = FileLock(store.root / "locks" / f"run-{run_id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
