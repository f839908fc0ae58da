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

__all__ = ["FoldRun", "Pooled", "can_part", "fold_numbers", "pool"]

Look = tuple[str, int]
"""Phase and epoch, as a line of the history names them."""


@dataclass(frozen=True)
class FoldRun:
    """What a training without one part said of that part: its answers at every look, and what each phase ended with."""

    looks: Mapping[Look, NDArray[np.float32]]
    picked: Mapping[int, Picked]


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
    common = [key for key in runs[0].looks if all(key in run.looks for run in runs)]
    chosen = [key for key in common if key[0] == phase.name or key[0].startswith(f"{phase.name} at ")]
    start = _start(plan, runs)
    options: list[tuple[Picked, list[NDArray[np.float32]]]] = []
    if start is not None and isinstance(phase, Phase) and phase.choose == "best":
        options.append((Picked(0), start))
    for name, epoch in chosen:
        share = float(name.rpartition(" at ")[2]) if name != phase.name else 1.0
        options.append((Picked(epoch, share), [run.looks[name, epoch] for run in runs]))
    if isinstance(phase, Phase) and phase.choose != "best":
        options = options[-1:]
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
    assert best is not None, "a plan ends with a phase that was looked at"
    return best


def _start(plan: TrainPlan, runs: Sequence[FoldRun]) -> list[NDArray[np.float32]] | None:
    """The answers before the last phase began, where the phase before it was looked at."""
    number = len(plan.phases) - 2
    if number < 0:
        return None
    name = plan.phases[number].name
    found = []
    for run in runs:
        end = run.picked.get(number)
        look = None if end is None or end.share < 1 else run.looks.get((name, end.epoch))
        if look is None:
            return None
        found.append(look)
    return found
