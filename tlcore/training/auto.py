"""Which strategy to take for so many labels and so much time: one table, measured (benchmarks/tuning.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tlcore.errors import PluginError
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.selection.halving import seconds_of_epochs
from tlcore.training.plan import TrainPlan

__all__ = ["CLOSED_FORM", "MACS_PER_SECOND", "TABLE", "Auto", "Row", "gradient_seconds"]


@dataclass(frozen=True)
class Row:
    """strategy: for classes with up to `images` labelled training images each; its options. epochs: passes over the
    images that it takes by gradient steps; 0: it solves the head in closed form."""

    images: float
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0


TABLE = (
    Row(2, "ridge"),
    Row(500, "full", epochs=15),
    Row(math.inf, "full", {"epochs": 5}, epochs=5),
)
"""The first row that has room for the images is taken. Measured at 1, 5 and 20 images a class, and at 27 to 51, where
five epochs were worse than fifteen; above 500 five of them are more steps than fifteen were there."""

CLOSED_FORM = "ridge"
"""What takes the place of gradient steps that there is no time for: of the heads on cached features the best for one, five
and twenty images a class, for labels of every kind."""

MACS_PER_SECOND = 30e9
"""Multiply-accumulates per second that a machine without an accelerator is taken to do in training, where nobody measured."""

NUMBER_COUNTS_AS = 10
"""Classes that a label of numbers counts as when images are counted per class."""


def gradient_seconds(task: TrainTask, epochs: int) -> float:
    """About how long so many passes over the training images take: by the network's measured speed, else by its
    multiply-accumulates (three forward passes' work for each image); infinite where neither is known."""
    if task.images_per_second is not None:
        return seconds_of_epochs(epochs, task.source_train, task.images_per_second)
    if task.gmacs is None:
        return math.inf
    return 3 * task.gmacs * 1e9 * task.source_train * epochs / MACS_PER_SECOND


def _row(task: TrainTask) -> Row:
    classes = NUMBER_COUNTS_AS if task.task == "regression" else max(1, len(task.classes))
    return next(row for row in TABLE if task.source_train / classes <= row.images)


class Auto(Tuner):
    """Stands for a strategy that is chosen when the labels have been counted: `choose` names it, the host builds it."""

    card: ClassVar[Card] = Card(
        name="auto",
        summary="Choose the strategy by images per class and budget, from one measured table",
        reference="TABLE in tlcore.training.auto, set by benchmarks/tuning.py",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    def choose(self, task: TrainTask) -> tuple[str, dict[str, Any]]:
        """The name and the options of the strategy for this task; never "auto"."""
        row = _row(task)
        late = task.budget is not None and gradient_seconds(task, row.epochs) > task.budget
        if row.epochs > 0 and late:
            return CLOSED_FORM, {}
        return row.strategy, dict(row.options)

    def reason(self, task: TrainTask) -> str:
        row, above = _row(task), [one.images for one in TABLE if one.images < _row(task).images]
        if self.choose(task)[0] != row.strategy:
            return "a head in closed form: no time for gradient steps"
        return (
            f"up to {row.images:g} images a class"
            if math.isfinite(row.images)
            else f"above {max(above):g} images a class"
        )

    def plan(self, task: TrainTask) -> TrainPlan:
        """Refused: the host has to build what `choose` names.

        Raises:
            PluginError: always.
        """
        name, _ = self.choose(task)
        raise PluginError(
            'the tuner "auto" was asked for a plan before the host had resolved it',
            hint=f'ask Auto.choose(task), here "{name}", and build that',
        )
