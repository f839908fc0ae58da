"""Evidence where labels are numbers or tags: each a target of its own, 0 or 1 for a tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.data.strata import strata
from tlcore.errors import UserError
from tlcore.features.folds import FOLDS, fold_of
from tlcore.features.moments import Moments
from tlcore.features.regression import RegressionMoments
from tlcore.protocols import Evidence, Scorer
from tlcore.values import Task

__all__ = ["number_evidence", "parted", "target_folds", "target_moments"]


def number_evidence(
    features: NDArray[np.floating[Any]],
    targets: NDArray[Any],
    task: Task,
    *,
    seed: int = 0,
    source_probabilities: Callable[[], NDArray[np.float32] | None] = lambda: None,
) -> Evidence:
    """Evidence of features [n, D] and `targets`, as `Dataset.targets` has them of labelled rows.

    `Evidence.labels` are groups of like images (`tlcore.data.strata`), by which samples and subsets are even.

    Raises:
        UserError: not one target that varies; features that are not finite.
    """
    codes = np.unique(strata(targets, task), return_inverse=True)[1].reshape(-1).astype(np.int64)
    wanted = np.asarray(targets, dtype=np.float64).reshape(len(codes), -1)
    single = np.asarray(features, dtype=np.float32)
    return Evidence(
        moments=Moments.of(features, codes, int(codes.max(initial=0)) + 1),
        labels=codes,
        features=lambda: single,
        source_probabilities=source_probabilities,
        seed=seed,
        regression=target_moments(features, wanted),
        targets=wanted,
    )


def target_moments(features: NDArray[np.floating[Any]], targets: NDArray[np.float64]) -> RegressionMoments:
    """Moments of features [n, D] and those of the targets [n, T] that vary: a constant one explains nothing.

    Raises:
        UserError: none varies.
    """
    varying = np.flatnonzero(np.ptp(targets, axis=0) > 0) if len(targets) else np.empty(0, np.intp)
    if not varying.size:
        raise UserError("no target varies among these images: there is nothing that features could explain")
    return RegressionMoments.of(features, targets[:, varying])


def target_folds(
    features: NDArray[np.floating[Any]], targets: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[RegressionMoments, ...]:
    """Moments of each fold of `tlcore.features.folds.fold_of`, all about the same points, of the targets that vary.

    Raises:
        UserError: fewer images than folds, or no target that varies.
    """
    if len(labels) < FOLDS:
        raise UserError(f"held-out scores need at least {FOLDS} images, not {len(labels)}")
    whole = target_moments(features, targets)
    varying = np.flatnonzero(np.ptp(targets, axis=0) > 0)
    number = fold_of(labels)
    return tuple(
        RegressionMoments.of(
            features[number == fold],
            targets[np.ix_(number == fold, varying)],
            shift=whole.shift,
            target_shift=whole.target_shift,
        )
        for fold in range(FOLDS)
    )


def parted(scorers: Sequence[Scorer], task: Task) -> tuple[list[Scorer], str]:
    """The scorers that can look at such labels, and one note about the others; "" where there are none."""
    if task == "classification":
        return list(scorers), ""
    kept = [scorer for scorer in scorers if "regression" in scorer.card.traits]
    others = [scorer.card.name for scorer in scorers if scorer not in kept]
    if not others:
        return kept, ""
    kind = "numbers" if task == "regression" else "tags"
    several = "are scores" if len(others) > 1 else "is a score"
    return kept, f"{', '.join(others)} {several} of classes and left out: these labels are {kind}"
