"""Search over a strategy's options: trials one after another, each a training that can be taken up again.

What is asked next depends on the seed, the number of the trial and the trials before it alone. So a search that was
killed asks what an unbroken one would have asked.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlcore.errors import PluginError, UserError
from tlcore.store import write_text
from tlcore.training.job import Pruned
from tlcore.training.processes import ALONE, Processes
from tlcore.training.proposals import propose, unpromising
from tlcore.training.space import Dimension
from tlcore.values import Epoch, Json, SearchTrial, Value

__all__ = ["Scored", "SearchJob", "best_first", "run_search", "watched"]

RESUME = "resume"
"""In a trial's folder: what its training goes on from. Gone when the trial is over."""
_STATE = "trials.json"


@dataclass(frozen=True)
class Scored:
    """What validation says of a trained network: larger is better; its loss decides between equals."""

    validation: float
    loss: float | None = None


Train = Callable[[Mapping[str, Json], Path, float | None, Callable[[Epoch], None]], Scored]
"""(options, folder of the trial, seconds, after_epoch) -> how good it is. `after_epoch` may raise `Pruned`."""


@dataclass(frozen=True)
class SearchJob:
    """What a search is made of.

    Attributes:
        configured: the options of the space as they were configured: trial 0, so that a search never ends worse than
            no search.
        trials: at most so many.
        train: one trial, in a folder of its own that holds what it goes on from when it was killed.
        budget: seconds for all trials together.
        keep: folders of so many of the best trials stay, so that a training with the same options in the same folder
            ends at once; the others go as soon as there are better ones.
        clock: seconds that pass.
        processes: that search together: all try the same trials, and the first one's clock and numbers count.
    """

    configured: Mapping[str, Json]
    space: tuple[Dimension, ...]
    trials: int
    train: Train
    scratch: Path
    seed: int = 0
    budget: float | None = None
    keep: int = 1
    clock: Callable[[], float] = time.monotonic
    processes: Processes = ALONE
    progress: Callable[[int, int, str], None] = lambda done, total, text: None

    def now(self) -> float:
        return self.processes.agree_on(self.clock())

    def folder(self, number: int) -> Path:
        return self.scratch / f"trial-{number}"


class _Log(Value):
    """What is known of a search: the trials that are over, and the one that was running at the last look."""

    done: tuple[SearchTrial, ...] = ()
    running: SearchTrial | None = None
    marks: tuple[tuple[str, int], ...] = ()
    """Phase and epoch of each value in the curve of `running`."""


def run_search(job: SearchJob) -> tuple[tuple[SearchTrial, ...], str]:
    """All trials in their order, and why there are no more of them.

    A trial that was running when its process was killed goes on with its own options and its own resume file.

    Raises:
        PluginError: no trial gave a network.
        UserError: the configured options contradict each other.
    """
    log = _read(job)
    while True:
        trial = log.running
        if trial is None:
            reason = _over(job, log.done)
            if reason:
                break
            number = len(log.done)
            options = dict(job.configured) if number == 0 else propose(job.space, log.done, number, job.seed)
            if options is None:
                reason = "everything was tried"
                break
            trial = SearchTrial(number=number, options=options)
            log = _write(job, _Log(done=log.done, running=trial))
        job.progress(trial.number, job.trials, f"trial {trial.number + 1} of {job.trials}")
        ended = _Running(job, log).run()
        log = _write(job, _Log(done=(*log.done, ended)))
        _tidy(job, log.done)
    if not best_first(log.done):
        failures = [trial.failed for trial in log.done if trial.failed]
        raise PluginError(
            f"none of {len(log.done)} trials gave a network: {failures[0] if failures else reason}"
        )
    return log.done, reason


def best_first(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Finished trials by validation; among equals the lower loss, then the earlier one."""
    return sorted(
        (trial for trial in trials if trial.finished),
        key=lambda trial: (trial.validation or 0.0, -(trial.loss or 0.0)),
        reverse=True,
    )


def watched(epoch: Epoch) -> float | None:
    """The number that a trial is judged by as it goes on: the first measure of an epoch."""
    return next(iter(epoch.measures.values()), None)


@dataclass
class _Running:
    """A trial as it goes on."""

    job: SearchJob
    log: _Log
    started: float = field(init=False)

    def run(self) -> SearchTrial:
        assert self.log.running is not None
        trial, folder = self.log.running, self.job.folder(self.log.running.number)
        self.started = self.job.now()
        if trial.pruned:  # killed between the verdict and the end
            return trial
        before = trial.seconds
        folder.mkdir(parents=True, exist_ok=True)
        spent = sum(one.seconds for one in self.log.done) + before
        left = None if self.job.budget is None else max(self.job.budget - spent, 0.001)
        scored, failed = None, None
        try:
            scored = self.job.train(trial.options, folder, left, lambda epoch: self._look(epoch, before))
        except Pruned:
            pass
        except PluginError as error:
            failed = error.what
        except UserError as error:
            if trial.number == 0:
                raise
            failed = error.what  # options that do not go together
        assert self.log.running is not None
        seconds = round(before + self.job.now() - self.started, 3)
        trial = self.log.running.model_copy(update={"seconds": seconds})
        if trial.pruned or failed is not None:
            return trial.model_copy(update={"failed": failed})
        if scored is None:
            return trial.model_copy(update={"failed": "it was ended and nobody says why"})
        validation = self.job.processes.agree_on(scored.validation)
        if not math.isfinite(validation):
            return trial.model_copy(update={"failed": f"its validation is {validation}"})
        loss = None if scored.loss is None else self.job.processes.agree_on(scored.loss)
        if loss is not None and not math.isfinite(loss):
            loss = None
        return trial.model_copy(update={"validation": validation, "loss": loss})

    def _look(self, epoch: Epoch, before: float) -> None:
        value, trial = watched(epoch), self.log.running
        if value is None or trial is None:
            return
        value = self.job.processes.agree_on(value)
        if not math.isfinite(value):
            return
        curve, marks, mark = trial.curve, self.log.marks, (epoch.phase, epoch.epoch)
        if mark in marks:
            # Training went back behind this look, to its resume file or to its last good point.
            place = marks.index(mark)
            curve, marks = curve[:place], marks[:place]
        curve = (*curve, value)
        pruned = unpromising(self.log.done, curve)
        told = trial.model_copy(
            update={
                "curve": curve,
                "epochs": len(curve),
                "pruned": pruned,
                "validation": max(curve) if pruned else None,
                "seconds": round(before + self.job.now() - self.started, 3),
            }
        )
        self.log = _write(self.job, self.log.model_copy(update={"running": told, "marks": (*marks, mark)}))
        if pruned:
            raise Pruned(f"worse than the median of the trials before it, after {len(curve)} looks")


def _over(job: SearchJob, done: Sequence[SearchTrial]) -> str:
    """Why no further trial begins; empty where one does."""
    if len(done) >= job.trials:
        return f"{job.trials} trials were asked for"
    if job.budget is not None and done:
        left = job.budget - sum(trial.seconds for trial in done)
        typical = [trial.seconds for trial in done if trial.finished]
        # A training that has to end in the middle says little about its options.
        if left <= (statistics.median(typical) / 2 if typical else 0):
            return f"{max(left, 0):.3g} s of the budget of {job.budget:g} s were left"
    return ""


def _tidy(job: SearchJob, done: Sequence[SearchTrial]) -> None:
    """Only the best trials keep their folder."""
    if not job.processes.first:
        return
    kept = {trial.number for trial in best_first(done)[: job.keep]}
    for trial in done:
        if trial.number not in kept:
            shutil.rmtree(job.folder(trial.number), ignore_errors=True)


def _read(job: SearchJob) -> _Log:
    path = job.scratch / _STATE
    if not path.is_file():
        return _Log()
    try:
        return _Log.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PluginError(
            f"the state of the search cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            hint="delete it and run again",
        ) from None


def _write(job: SearchJob, log: _Log) -> _Log:
    if job.processes.first:
        write_text(job.scratch / _STATE, log.model_dump_json())
    return log
