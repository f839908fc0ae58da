"""How much a score hangs on the very images it was computed from: the delete-half jackknife.

The bootstrap draws n images *with* replacement. A third of the draws are repeats, and a likelihood takes
a repeated row for an independent one that agrees: LogME of a bootstrap sample lies systematically above
LogME of the sample (by many standard deviations where n < D), so its interval misses the score.

Subsets drawn *without* replacement repeat nothing. The delete-d jackknife (Shao & Wu 1989, "A general
theory for jackknife variance estimation", eq. 2.1) gives from the scores T_s of subsets of m = n - d rows

    var(T_n) = m / (n - m) * mean_s (T_s - mean T_s)^2,

and m = n / 2 makes the factor 1. The mean of the T_s differs from T_n (a score from fewer images is not
the same score), so the interval is centred on T_n itself.

A score that reads u of the n images, and u_s of those of a subset, varies like 1 / u over new images and like
1 / u_s - 1 / n over the subsets (drawing without replacement), so the factor is (1 / u) / (1 / u_s - 1 / n):
with u = n and u_s = m that of the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.values import Interval

__all__ = ["draw_scale", "half_samples", "jackknife_interval", "rotated", "stratified"]

MAX_ROWS = 512
"""Rows of a subset at most, so that a replicate's cost does not grow with the data set."""
NORMAL_95 = 1.959963984540054


def stratified(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Sorted positions of at most `limit` rows, the same share of every class, without replacement; all of them when
    there are no more than `limit`. Two of each class at least (or its only one): with more classes than limit / 2
    these are more than `limit`."""
    if labels.size <= limit:
        return np.arange(labels.size, dtype=np.int64)
    draw = np.random.default_rng(seed)
    codes, counts = np.unique(labels, return_counts=True)
    chosen = [
        draw.permutation(np.flatnonzero(labels == code))[:size]
        for code, size in zip(codes, _shares(counts, limit), strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _shares(counts: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """How many rows of each class: at least two, and the others the same share of what these leave of `limit`."""
    least = np.minimum(counts, 2)
    sizes = least.copy()
    large = np.ones(counts.size, dtype=np.bool_)
    while large.any():
        left = max(limit - int(least[~large].sum()), 0)
        sizes[large] = left * counts[large] // int(counts[large].sum())
        small = large & (sizes < least)
        if not small.any():
            break
        large &= ~small
    return np.maximum(sizes, least)


def half_samples(labels: NDArray[np.int64], replicates: int, seed: int) -> list[NDArray[np.intp]]:
    """Sorted row numbers of `replicates` subsets without replacement: half of each class (512 rows in all at most).

    All subsets have the same class counts (odd halves are rounded so that their sum is right, and every
    class keeps at least one row), so that the class balance adds nothing to the spread.
    """
    draw = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == code) for code in np.unique(labels)]
    share = min(0.5, MAX_ROWS / labels.size)
    bounds = np.rint(np.cumsum([0.0, *(share * rows.size for rows in members)])).astype(np.int64)
    sizes = np.maximum(np.diff(bounds), 1)
    return [
        np.sort(
            np.concatenate(
                [
                    draw.choice(rows, size=size, replace=False)
                    for rows, size in zip(members, sizes, strict=True)
                ]
            )
        )
        for _ in range(replicates)
    ]


def jackknife_interval(score: float, replicates: Sequence[float], scale: float) -> Interval:
    """score ± 1.96 sd, with the sd of the scores on subsets times `scale` (see `draw_scale`).

    Meaning: if the same number of images per class were drawn anew from where these came from, the score
    would differ from its expectation by more than half this width in about 1 of 20 draws. It says nothing
    of how well the score foretells accuracy.
    """
    spread = float(np.std(np.asarray(replicates), ddof=1)) * scale
    return Interval(low=score - NORMAL_95 * spread, high=score + NORMAL_95 * spread)


def draw_scale(n: int, m: int, read: int | None = None, read_of_subset: int | None = None) -> float:
    """From the deviations of scores on subsets of m of n rows to those over new rows: the root of the factor above.

    Args:
        read: rows that the score on all rows reads; None for all n.
        read_of_subset: rows that it reads of a subset; None for all m. Fewer than n.
    """
    return math.sqrt((1 / (read or n)) / (1 / (read_of_subset or m) - 1 / n))


def rotated(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same rows [n, D] in the coordinates of their own row space, [n, min(n, D)].

    F = R^T Q^T with F^T = Q R: all inner products between rows stay, so every score that is invariant
    under rotation stays, at n^3 and not D^3.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.shape[0] >= rows.shape[1]:
        return rows
    triangle: NDArray[np.float64] = np.linalg.qr(rows.T, mode="r")  # type: ignore[assignment]
    return triangle.T
