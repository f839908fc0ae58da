"""Parts of a few labelled images for cross-validation, and what all parts together choose."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.training.job import Measured, Picked
from tlcore.training.measures import measured
from tlcore.training.plan import Phase, TrainPlan
from tlcore.values import Task

__all__ = ["FEW", "FoldRun", "Pooled", "can_part", "fold_numbers", "pool"]

FEW = 150
"""Labelled images outside the test split up to which all of them validate in turn: of fewer than that the share that is
set aside has some 20 images, and one of them is five points."""

Look = tuple[str, int]
"""Phase and epoch, as a line of the history names them."""


@dataclass(frozen=True)
class FoldRun:
    """What a training without one part said of that part: its answers at every look, what each phase ended with, its
    answers when it was over, what it noted by the way, and whether its budget ended it."""

    looks: Mapping[Look, NDArray[np.float32]]
    picked: Mapping[int, Picked]
    final: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    late: bool = False

    def at(self, phase: str, number: int, epoch: int) -> NDArray[np.float32] | None:
        """The answers after an epoch; of a phase that had ended before, those of the epoch that it kept."""
        kept = self.picked.get(number)
        found = self.looks.get((phase, epoch))
        if found is None and kept is not None and 0 < kept.epoch <= epoch:
            found = self.looks.get((phase, kept.epoch))
        return found

    def blend(self, name: str) -> tuple[int, NDArray[np.float32]] | None:
        """The epoch and the answers of a blend, whatever epoch this part's end was."""
        return next(((epoch, found) for (one, epoch), found in self.looks.items() if one == name), None)


@dataclass(frozen=True)
class Pooled:
    """The look that is best over all parts together.

    outputs: float32 [n, K] of every image by the network that has not seen it. picked: what the phases of a training
    on all images end with.
    """

    measured: Measured
    outputs: NDArray[np.float32]
    picked: Mapping[int, Picked]


def fold_numbers(
    strata: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int
) -> NDArray[np.int64]:
    """The part 0 … folds - 1 of each image: strata spread evenly, images of one group (copies) together. Fewer parts
    where no stratum has an image for each.

    Raises:
        UserError: no stratum has two images that are no copies of each other.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    count = min(folds, _largest(strata, numbers))
    if count < 2:
        raise UserError(
            f"{len(strata)} labelled images, one of each kind, cannot be parted for cross-validation",
            hint="add images, or set finetune.validation = held-out",
        )
    parts = np.zeros(len(strata), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a class of fewer images than folds: it lacks in some of them
        cutter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        for number, (_, held_out) in enumerate(cutter.split(strata, strata, numbers)):
            parts[held_out] = number
    return np.unique(parts, return_inverse=True)[1].astype(np.int64)


def can_part(strata: NDArray[np.int64], groups: Sequence[str]) -> bool:
    """Whether there are images to hold out whose like is left to learn from."""
    return _largest(strata, np.unique(np.asarray(groups), return_inverse=True)[1]) > 1


def _largest(strata: NDArray[np.int64], numbers: NDArray[np.int64]) -> int:
    """Different images of the stratum that has most of them."""
    pairs = np.unique(np.stack([strata, numbers], 1), axis=0)
    return int(np.unique(pairs[:, 0], return_counts=True)[1].max(initial=0))


def pool(
    plan: TrainPlan, runs: Sequence[FoldRun], parts: NDArray[np.int64], targets: NDArray[Any], task: Task
) -> Pooled:
    """Choose the end of the last phase by all held-out answers together, the ends of those before it by the parts'
    median.

    One choice for all parts, made on all images: choosing the best epoch of each part for itself would flatter
    strategies that have many epochs to choose from.
    """
    last = len(plan.phases) - 1
    phase = plan.phases[last]
    options = _options(plan, runs, last)
    if isinstance(phase, Phase) and phase.choose != "best":
        options = options[-1:]
    if not options:  # the budget left no look in any part: what each ended with is its start
        options = [(Picked(0), [run.final for run in runs])]
    best: Pooled | None = None
    before = {
        number: Picked(
            round(statistics.median(run.picked[number].epoch for run in runs)),
            statistics.median(run.picked[number].share for run in runs),
        )
        for number in range(last)
        if all(number in run.picked for run in runs)
    }
    for end, answers in options:
        outputs = np.zeros((len(parts), answers[0].shape[1]), np.float32)
        for number, values in enumerate(answers):
            outputs[parts == number] = values
        seen = measured(outputs, targets, task)
        if best is None or seen.choice > best.measured.choice:
            best = Pooled(seen, outputs, {**before, last: end})
    assert best is not None  # there is one option at least
    return best


def _options(
    plan: TrainPlan, runs: Sequence[FoldRun], last: int
) -> list[tuple[Picked, list[NDArray[np.float32]]]]:
    """What the last phase may end with, and the answers of every part then."""
    phase = plan.phases[last]
    found: list[tuple[Picked, list[NDArray[np.float32]]]] = []
    start = _start(plan, runs)
    if start is not None and isinstance(phase, Phase) and phase.choose == "best":
        found.append((Picked(0), start))
    for epoch in sorted({epoch for run in runs for name, epoch in run.looks if name == phase.name}):
        answers = [one for run in runs if (one := run.at(phase.name, last, epoch)) is not None]
        if len(answers) == len(runs):
            found.append((Picked(epoch), answers))
    for share in phase.interpolate if isinstance(phase, Phase) else ():
        blends = [mix for run in runs if (mix := run.blend(f"{phase.name} at {share:g}")) is not None]
        if len(blends) == len(runs):
            middle = round(statistics.median(epoch for epoch, _ in blends))
            found.append((Picked(middle, share), [answers for _, answers in blends]))
    return found


def _start(plan: TrainPlan, runs: Sequence[FoldRun]) -> list[NDArray[np.float32]] | None:
    """The answers before the last phase began, where what led to them was looked at."""
    found = []
    for run in runs:
        for number in range(len(plan.phases) - 2, -1, -1):
            end = run.picked.get(number)
            if end is None or end.epoch > 0:
                break  # a phase that kept its start passes on what the one before it left
        else:
            return None
        if end is None:
            return None
        name = plan.phases[number].name
        if end.share < 1:
            blend = run.blend(f"{name} at {end.share:g}")
            answers = None if blend is None else blend[1]
        else:
            answers = run.looks.get((name, end.epoch))
        if answers is None:
            return None
        found.append(answers)
    return found
