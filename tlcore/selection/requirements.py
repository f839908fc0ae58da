"""What evidence must hold before a score of classes means anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tlcore.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcore.features.moments import Moments
    from tlcore.features.regression import RegressionMoments
    from tlcore.protocols import Evidence

__all__ = [
    "MINIMUM_IMAGES",
    "check_moments",
    "check_targets",
    "held_out_folds",
    "joint_counts",
    "labelled_moments",
]

MINIMUM_IMAGES = 4
"""Below this a class cannot be told from a single image that happens to lie apart."""


def labelled_moments(evidence: Evidence, scorer: str, *, varies: bool = True) -> Moments:
    """The moments of evidence that a score of classes can be computed from.

    Args:
        scorer: its name, for errors.
        varies: whether the score needs features that vary.

    Raises:
        UserError: real-valued targets, or as `check_moments`.
    """
    if evidence.regression is not None:
        raise UserError(f"{scorer} scores classes, and these targets are numbers", hint="use logme")
    check_moments(evidence.moments, scorer, varies=varies)
    return evidence.moments


def check_moments(moments: Moments, scorer: str, *, varies: bool = True) -> None:
    """Raise UserError for fewer than 4 images, fewer than 2 classes or features without variance."""
    if moments.n < MINIMUM_IMAGES:
        raise UserError(f"{scorer} needs at least {MINIMUM_IMAGES} labelled images, not {moments.n}")
    if moments.present.sum() < 2:
        raise UserError(
            f"{scorer} needs images of at least 2 classes; all labelled images are of one class",
            hint="label images of a second class",
        )
    if varies and not moments.varies:
        raise UserError("the features carry no variance: every image looks the same to this network")


def check_targets(moments: RegressionMoments, scorer: str) -> None:
    """Raise UserError for fewer than 4 images, a constant target or features without variance."""
    if moments.n < MINIMUM_IMAGES:
        raise UserError(f"{scorer} needs at least {MINIMUM_IMAGES} images, not {moments.n}")
    if not moments.targets_vary.all():
        flat = ", ".join(str(place) for place in np.flatnonzero(~moments.targets_vary))
        raise UserError(
            f"a target is constant (column {flat}): there is nothing that features could explain",
            hint="leave the column out, or take images whose targets differ",
        )
    if not moments.varies:
        raise UserError("the features carry no variance: every image looks the same to this network")


def held_out_folds(evidence: Evidence, scorer: str) -> Sequence[Moments]:
    """The moments by fold of evidence that a held-out score can be computed from.

    Raises:
        UserError: as `labelled_moments`; nobody made folds.
    """
    labelled_moments(evidence, scorer)
    if len(evidence.folds) < 2:
        raise UserError(
            f"{scorer} is held out and needs moments by fold, and this evidence has none",
            hint="make them with tlcore.features.folds.fold_moments",
        )
    return evidence.folds


def joint_counts(evidence: Evidence, scorer: str, *, soft: bool) -> NDArray[np.float64]:
    """[K, Z], images by class and source class; soft: by the source probabilities, else by the most probable.

    Raises:
        UserError: as `labelled_moments`, whatever the features; no source head.
    """
    moments = labelled_moments(evidence, scorer, varies=False)
    joint = moments.source_mass if soft else moments.source_counts
    if joint is None:
        raise UserError(f"{scorer} needs a network with its source head, and this one has none")
    return joint.astype(np.float64)
