"""Groups of like labels: what stands for classes where samples, folds and splits are to be even.

Numbers are parted at their quantiles. An image with tags belongs to the rarest of its tags, since that one is the
first to be missing from a part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.values import Task

__all__ = ["MOST_BINS", "PER_BIN", "number_bins", "strata", "tag_strata"]

MOST_BINS = 10
PER_BIN = 10
"""Numbers that a bin should hold at least, so that a tenth of it is an image."""


def strata(targets: NDArray[Any], task: Task) -> NDArray[np.int64]:
    """int64 [n] from `Dataset.targets` of labelled rows: the classes themselves, `number_bins` or `tag_strata`."""
    if task == "regression":
        return number_bins(targets)
    if task == "multi-label":
        return tag_strata(targets)
    return np.asarray(targets, dtype=np.int64)


def number_bins(numbers: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The quantile bin of each number, int64 [n], 0 for the lowest: n / 10 bins, one at least and ten at most.

    Equal numbers share a bin, so that there may be fewer bins; their codes have no gap. The order of rows is of no
    account.
    """
    values = np.asarray(numbers, dtype=np.float64)
    count = int(np.clip(values.size // PER_BIN, 1, MOST_BINS))
    if values.size == 0 or count == 1:
        return np.zeros(values.size, dtype=np.int64)
    edges = np.quantile(values, np.arange(1, count) / count, method="inverted_cdf")
    codes = np.searchsorted(edges, values, side="left")
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)


def tag_strata(tags: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The rarest tag of each image, int64 [n], of equally rare ones the first; K for an image without tags.

    tags: [n, K] of 0 and 1.
    """
    present = np.asarray(tags) > 0.5
    counts = present.sum(axis=0)
    rank = np.empty(counts.size, dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(counts.size)
    rarest = np.where(present, rank, counts.size).min(axis=1, initial=counts.size)
    tag_of_rank = np.append(np.argsort(counts, kind="stable"), counts.size)
    return np.asarray(tag_of_rank[rarest], dtype=np.int64)
