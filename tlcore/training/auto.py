"""Which strategy to take for so many labels and so much time: one table, measured (benchmarks/tuning.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.selection.halving import seconds_of_epochs
from tlcore.training.plan import TrainPlan

__all__ = [
    "CHEAPER",
    "CLOSED_FORM",
    "GMACS_PER_SECOND",
    "TABLE",
    "Auto",
    "Row",
    "gradient_gmacs",
    "gradient_seconds",
]


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
    Row(math.inf, "full", epochs=15),
)
"""The first row that has room for the images is taken. Measured at 1, 5 and 20 images a class, and at 27 to 51."""

CHEAPER = Row(math.inf, "lp-ft", epochs=5)
"""What takes the place of more epochs than there is time for: it starts from a probe, so that few of them do."""

CLOSED_FORM = "ridge"
"""What takes the place of gradient steps that there is no time for: of the heads on cached features the best for one, five
and twenty images a class, for labels of every kind."""

GMACS_PER_SECOND = 30.0
"""Billions of multiply-accumulates that a machine without an accelerator is taken to do per second, where nobody measured."""

NUMBER_COUNTS_AS = 10
"""Classes that a label of numbers counts as when images are counted per class."""


def gradient_gmacs(task: TrainTask, epochs: int) -> float:
    """Billions of multiply-accumulates of so many passes over the training images, all folds together: three forward
    passes' work for each image. Infinite where nobody counted the network's."""
    return math.inf if task.gmacs is None else 3 * task.gmacs * task.source_train * task.trainings * epochs


def gradient_seconds(task: TrainTask, epochs: int) -> float:
    """About how long that takes: by the network's measured speed, else by its multiply-accumulates."""
    if task.images_per_second is not None:
        return seconds_of_epochs(epochs, task.source_train * task.trainings, task.images_per_second)
    return gradient_gmacs(task, epochs) / GMACS_PER_SECOND


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

    gmacs_without_budget: float = Field(
        3000,
        gt=0,
        description="billions of multiply-accumulates that full fine-tuning may take where no budget is set",
    )

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(row.strategy for row in (*TABLE, CHEAPER)), CLOSED_FORM)))

    def choose(self, task: TrainTask) -> tuple[str, dict[str, Any]]:
        """The name and the options of the strategy for this task; never "auto".

        Of the table's row, then `CHEAPER`, the first that there is time for. A budget is held against measured seconds.
        Without one the work is counted, so that a busy machine chooses as an idle one does, and `CHEAPER` is always
        affordable. With no time for either: `CLOSED_FORM`.
        """
        row = _row(task)
        found = next((one for one in (row, CHEAPER) if self._affordable(one, task)), Row(0, CLOSED_FORM))
        return found.strategy, dict(found.options)

    def _affordable(self, row: Row, task: TrainTask) -> bool:
        if not row.epochs:
            return True
        if task.budget is not None:
            return gradient_seconds(task, row.epochs) <= task.budget
        return row is CHEAPER or gradient_gmacs(task, row.epochs) <= self.gmacs_without_budget

    def reason(self, task: TrainTask) -> str:
        row, above = _row(task), [one.images for one in TABLE if one.images < _row(task).images]
        chosen = self.choose(task)[0]
        if chosen == CLOSED_FORM != row.strategy:
            return "a head in closed form: no time for gradient steps"
        if chosen != row.strategy:
            work = gradient_gmacs(task, row.epochs)
            cost = f"{work:,.0f} GMACs" if math.isfinite(work) else "nobody knows how much work"
            return f"{row.strategy} would take {cost}; a --budget with room for it takes it"
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
