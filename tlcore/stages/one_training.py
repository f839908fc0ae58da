"""One training within a stage: network, plan, budget, and the looks at images held out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.protocols import Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.material import Material
from tlcore.stages.tables import copies_of
from tlcore.stages.validation import labelled
from tlcore.training.folds import FoldRun
from tlcore.training.job import Measured, Picked, TrainJob, TrainResult
from tlcore.training.loop import run_plan
from tlcore.training.measures import measured
from tlcore.training.network import Network
from tlcore.training.plan import TrainPlan
from tlcore.training.predict import predict, predict_features
from tlcore.training.processes import launched
from tlcore.training.streams import StreamData
from tlcore.values import Epoch, Task

__all__ = ["Clock", "OneTraining", "Watch", "look"]

Watch = Callable[[Epoch], None]


class Clock:
    """Seconds of a budget that are left, of everything that is done with it; None: no bound."""

    def __init__(self, budget: float | None) -> None:
        self.budget, self.started = budget, time.monotonic()

    def left(self) -> float | None:
        if self.budget is None:
            return None
        return max(1e-3, self.budget - (time.monotonic() - self.started))

    def share(self, parts: int) -> Clock:
        """The clock of the next of so many equal parts."""
        left = self.left()
        return Clock(None if left is None else left / parts)


class OneTraining:
    """One training: a fresh network, the plan for these rows, and looks at the images held out."""

    def __init__(
        self, context: StageContext, given: Material, tuner: Tuner, rows: NDArray[np.int64], held_out: NDArray[np.int64],
        scratch: Path, clock: Clock, said: str = "", network: Network | None = None,
    ) -> None:  # fmt: skip
        self.context, self.given, self.rows, self.held_out = context, given, rows, held_out
        self.scratch, self.said = scratch, said
        self.clock, self.network = clock, network or given.network(rows)
        self.task = given.task(self.network, rows, clock.budget)
        self.plan = tuner.plan(self.task)
        if self.plan.keeps_backbone:
            given.embed_all(self.network)

    def run(
        self, *, fixed: Mapping[int, Picked] | None = None, after_epoch: Watch | None = None
    ) -> TrainResult:
        given, context = self.given, self.context
        known = None if given.embedded is None else np.asarray(given.embedded[self.rows])
        place = {int(row): position for position, row in enumerate(given.rows)}
        teacher = given.teacher
        if teacher is not None and not np.array_equal(self.rows, given.rows):
            teacher = teacher[[place[int(row)] for row in self.rows]]
        job = TrainJob(
            network=self.network, preprocess=given.preprocess, task=self.task, plan=self.plan,
            streams={
                "source": StreamData(
                    given.pixels, self.rows, as_labels(given.targets[self.rows], given.dataset.task),
                    groups=copies_of(given.dataset, self.rows),
                )
            },
            measure=self.measure, scratch=self.scratch, seed=context.job.seed, device=context.job.device,
            features={} if known is None else {"source": known}, progress=self._progress, budget=self.clock.left(),
            precision=context.job.options.get("precision", "fp32"), decisions=context.store.root / "decisions",
            architecture=given.candidate.architecture,
            fixed=fixed, after_epoch=after_epoch or (lambda epoch: None), processes=launched(),
            source_head=given.source_head, teacher=teacher, text=given.text,
            kept=(context.work.scratch / "activations", given.rows if np.isin(self.rows, given.rows).all() else labelled(given)),
        )  # fmt: skip
        return run_plan(job)

    def measure(self, network: Network) -> Measured:
        given, rows = self.given, self.held_out
        if not len(rows):
            return Measured((0.0,), {})
        self.last = look(self.context, given, network, rows, self.plan)
        return measured(self.last, given.targets[rows], given.dataset.task)

    def fold_run(self) -> FoldRun:
        """Train, and keep the answers of every look; a killed one goes on with those that it had."""
        looks = Looks(self.scratch / "looks.npz")

        def after(line: Epoch) -> None:
            looks.add((line.phase, line.epoch), self.last)

        result = self.run(after_epoch=after)
        self.measure(self.network)
        stopped = (result.stopped,) if result.stopped and not result.late else ()
        return FoldRun(looks.found, result.picked, self.last, (*result.notes, *stopped), result.late)

    def _progress(self, done: int, total: int, text: str) -> None:
        self.context.progress(done, total, self.said + text)


def look(
    context: StageContext, given: Material, network: Network, rows: NDArray[np.int64], plan: TrainPlan
) -> NDArray[np.float32]:
    """The answers to rows of the table."""
    if plan.keeps_backbone and given.embedded is not None:
        return predict_features(network, np.asarray(given.embedded[rows]), device=context.job.device)[1]
    return predict(network, given.pixels, rows, given.preprocess, device=context.job.device)[1]


class Looks:
    """Answers by phase and epoch, in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, dict[tuple[str, int], NDArray[np.float32]]()
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                for key in stored.files:
                    name, _, epoch = key.rpartition("@")
                    self.found[name, int(epoch)] = stored[key]

    def add(self, key: tuple[str, int], outputs: NDArray[np.float32]) -> None:
        self.found[key] = outputs.copy()
        if not launched().first:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part.npz")
        named: dict[str, Any] = {f"{name}@{epoch}": values for (name, epoch), values in self.found.items()}
        np.savez(part, **named)
        part.replace(self.path)


def as_labels(targets: NDArray[Any], task: Task) -> NDArray[Any]:
    return targets.astype(np.int64 if task == "classification" else np.float32)
