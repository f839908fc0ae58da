"""A stage in several processes that accelerate starts, on this machine or on several.

    accelerate launch --num_processes 2 -m tlcore.stages.launched FILE

FILE is written by the process that wants the stage's result; it waits until that is there. All processes carry out
the same stage; the first one writes.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlcore import errors
from tlcore.errors import PluginError, TlcoreError

if TYPE_CHECKING:
    from tlcore.stages.base import Progress, StageJob
    from tlcore.store import Store, Work

__all__ = ["spread"]

_ORDER, _FAILURE = "launch.json", "failure.json"
_PROGRESS = "tlcore-progress "
_ENDING = 20.0
"""Seconds that processes are given to end by themselves."""


@dataclass(frozen=True)
class _Order:
    """What the processes are told; all of it is text."""

    job: str
    store: str
    folder: str
    scratch: str

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.__dict__), encoding="utf-8")


def spread(store: Store, job: StageJob, place: Work, progress: Progress) -> None:
    """Carry the stage out in `job.processes` processes. The result is in `place` afterwards.

    Raises:
        TlcoreError: what a process raised; PluginError where they end in another way.
    """
    order = place.scratch / _ORDER
    failure = place.scratch / _FAILURE
    failure.unlink(missing_ok=True)
    _Order(job.model_dump_json(), store.place, str(place.folder), str(place.scratch)).write(order)
    progress(0, 0, f"starting {job.processes} processes")
    process = subprocess.Popen(
        _command(job, order), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(_threads(job))},
    )  # fmt: skip
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_PROGRESS):
                progress(*json.loads(line.removeprefix(_PROGRESS)))
            else:
                said = [*said[-20:], line.rstrip()]
        process.wait()
    finally:
        _end(process)
    if failure.is_file():
        raise _told(json.loads(failure.read_text(encoding="utf-8")))
    if process.returncode:
        raise PluginError(
            f"the processes of {job.label} ended with status {process.returncode}: "
            + " / ".join(line for line in said[-4:] if line),
            hint="run it with compute.processes = 1 to see the error itself",
        )


def _command(job: StageJob, order: Path) -> Sequence[str]:
    chosen = shlex.split(job.launch)
    if not any(word.startswith(("--main_process_port", "--config_file")) for word in chosen):
        chosen += ["--main_process_port", str(_free_port())]
    if job.device == "cpu":
        chosen.append("--cpu")
    elif job.processes > 1 and "--multi_gpu" not in chosen:
        chosen.append("--multi_gpu")
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(job.processes), *chosen,
        "-m", "tlcore.stages.launched", str(order),
    ]  # fmt: skip


def _threads(job: StageJob) -> int:
    from tlcore.training.processes import usable_processors

    return max(1, (job.threads or usable_processors()) // job.processes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[str]) -> None:
    """The launcher ends its processes when it is asked to."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _told(parts: dict[str, object]) -> TlcoreError:
    kind = getattr(errors, str(parts.pop("kind")), PluginError)
    made: TlcoreError = errors._rebuild(kind, parts)
    return made


def main(path: str) -> int:
    """One of the processes."""
    from tlcore.registry import Registry
    from tlcore.stages.base import StageContext, StageJob, body
    from tlcore.stages.machine import settle
    from tlcore.store import Store, Work
    from tlcore.training.processes import launched

    order = _Order(**json.loads(Path(path).read_text(encoding="utf-8")))
    job = StageJob.model_validate_json(order.job)
    processes = launched()
    store = Store.open(order.store)
    device = job.device if job.device == "cpu" else f"{job.device.partition(':')[0]}:{processes.local}"
    job = job.model_copy(update={"device": device})
    settle(_threads(job), job.device)

    def progress(done: int, total: int, text: str = "") -> None:
        if processes.first:
            print(_PROGRESS + json.dumps([done, total, text]), flush=True)

    with tempfile.TemporaryDirectory(prefix="tlcore-") as aside:
        # What the others write is what the first one writes: it goes nowhere.
        place = Work(Path(order.folder) if processes.first else Path(aside), Path(order.scratch))
        context = StageContext(store, Registry.discover(cache_folder=store.root), job, place, progress)
        try:
            place.write(body(job.stage)(context))
        except TlcoreError as error:
            if processes.first:
                parts = {**error.__dict__, "kind": type(error).__name__}
                (place.scratch / _FAILURE).write_text(json.dumps(parts, default=str), encoding="utf-8")
            return 1
        processes.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
