"""What a training is validated on: images set aside, or all of them in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.data.strata import strata
from tlcore.stages.base import StageContext
from tlcore.stages.material import Material
from tlcore.training.folds import FEW, can_part, fold_numbers

__all__ = ["folds", "in_turn", "kinds", "labelled", "set_aside", "validated_by"]


def validated_by(context: StageContext, given: Material) -> str:
    """ "held-out" or "cross-validation": as the option says; "auto": all images in turn where there are few, unless
    a validation split was given or an adapter follows, whose gate asks validation images that nothing was trained on."""
    asked = context.job.options.get("validation", "held-out")
    rows = labelled(given)
    if not in_turn(asked, len(rows), given.given_splits, given.dataset.has_target):
        return "held-out"
    parted = asked != "auto" or can_part(*kinds(given, rows))
    return "cross-validation" if parted else "held-out"


def in_turn(asked: str, images: int, given_splits: Sequence[str], has_target: bool) -> bool:
    """Whether so many labelled images validate in turn, where they can be parted at all.

    A validation split that came with the data stays one: somebody said what to validate on, whole patients or scenes.
    """
    if asked != "auto":
        return asked == "cross-validation"
    return images <= FEW and "val" not in given_splits and not has_target


def set_aside(given: Material) -> NDArray[np.int64]:
    """Images set aside; where there are none the training images: the report of the data says so."""
    return given.held_out if len(given.held_out) else given.rows


def labelled(given: Material) -> NDArray[np.int64]:
    return np.sort(np.concatenate([given.rows, given.held_out]))


def folds(context: StageContext, given: Material, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    rows = labelled(given) if rows is None else rows
    return fold_numbers(*kinds(given, rows), context.job.options.get("folds", 5), context.job.seed)


def kinds(given: Material, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Strata of labels, and what makes copies of an image one group."""
    digests = given.dataset.table["sha256"].gather(rows).fill_null("").to_list()
    groups = [digest or str(row) for digest, row in zip(digests, rows, strict=True)]
    return strata(given.targets[rows], given.dataset.task), groups
