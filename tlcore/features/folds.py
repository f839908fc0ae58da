"""Moments of disjoint parts of the images: held-out scores from one pass over the features.

With moments of k parts, the moments of "all but part j" are sums of the others, so a model can be fitted to
k - 1 parts and judged on the one it has not seen without a second look at any image's features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcore.errors import UserError
from tlcore.features.moments import Moments, MomentsBuilder
from tlcore.features.rows import check_features, checked_labels, checked_probabilities

__all__ = ["FOLDS", "fold_moments", "fold_of", "others"]

FOLDS = 5
BLOCK = 8192
"""Rows that are read together and dealt out to the folds."""


def fold_of(labels: ArrayLike, folds: int = FOLDS) -> NDArray[np.int64]:
    """Number [n] in 0 … folds-1 of each image's fold, from its label [n] and its place alone.

    The images are dealt out like cards, class after class and in their order within the class, so the sizes of
    any two folds differ by at most one image, in all and within every class. A class with fewer images than
    folds is missing from some. Nothing is drawn: the same labels always give the same folds.

    Raises:
        UserError: fewer than two folds.
    """
    if folds < 2:
        raise UserError(f"held-out scores need at least 2 folds, not {folds}")
    codes = np.asarray(labels)
    number = np.empty(codes.size, dtype=np.int64)
    number[np.argsort(codes, kind="stable")] = np.arange(codes.size) % folds
    return number


def fold_moments(
    features: ArrayLike,
    labels: ArrayLike,
    classes: int,
    source_probabilities: ArrayLike | None = None,
    *,
    folds: int = FOLDS,
    shift: ArrayLike | None = None,
) -> tuple[Moments, ...]:
    """Moments of every fold of `fold_of`, in one pass; `Moments.merge` of them is the moments of all images.

    Costs what `Moments.of` costs in time, and `folds` times its memory (five folds of 2048 features: 170 MB). All
    folds have one shift, so that sums over folds are sums of arrays.

    Args:
        features: [n, D]; a memory map is read block by block.
        labels: [n] in 0 … classes-1.
        source_probabilities: [n, Z] of the source head, or None.
        shift: [D]; default: the mean of the first block.

    Returns:
        one Moments per fold that has images: `folds` of them, or n where there are fewer images.

    Raises:
        UserError: as `Moments.of`; fewer than two folds.
    """
    rows = np.asarray(features)
    # Of all rows, before any is dealt out: errors name rows by their number.
    check_features(rows)
    codes = checked_labels(labels, len(rows), classes)
    mass = None if source_probabilities is None else checked_probabilities(source_probabilities, len(rows))
    fold = fold_of(codes, folds)
    centre = rows[:BLOCK].mean(axis=0, dtype=np.float64) if shift is None else shift
    builders = [MomentsBuilder(classes, shift=centre) for _ in range(min(folds, len(rows)))]
    for start in range(0, len(rows), BLOCK):
        block, number = rows[start : start + BLOCK], fold[start : start + BLOCK]
        for index, builder in enumerate(builders):
            chosen = np.flatnonzero(number == index)
            if chosen.size:
                place = start + chosen
                builder.add(block[chosen], codes[place], None if mass is None else mass[place])
    return tuple(builder.moments() for builder in builders)


def others(folds: Sequence[Moments], index: int) -> Moments:
    """Moments of all folds but one: what a model may learn from before it is judged on that one."""
    return Moments.merge(fold for place, fold in enumerate(folds) if place != index)
