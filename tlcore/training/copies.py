"""Copies of an image among the images that a head is solved from: what is held out together.

labels: int64 [n], 0 … P-1. groups: int64 [n], equal for copies of an image; None where all images differ.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError
from tlcore.training.plan import HeadProblem

__all__ = [
    "copies_in", "different", "groups_of_several", "held_out_parts", "of_several_labels", "times", "with_others",
]  # fmt: skip

Ints = NDArray[np.int64]


def copies_in(problem: HeadProblem) -> Ints | None:
    """The problem's groups, numbered in the order in which they appear; None where all images differ.

    Raises:
        PluginError: groups that are not one number for each image.
    """
    if problem.groups is None:
        return None
    given = np.asarray(problem.groups)
    if given.shape != (len(problem.features),):
        raise PluginError(f"the groups of {len(problem.features)} images are {list(given.shape)}")
    _, first, number = np.unique(given, return_index=True, return_inverse=True)
    if len(first) == len(given):
        return None
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def different(labels: Ints, groups: Ints | None) -> Ints:
    """Images of each class that are no copies of each other, [P]."""
    if groups is None:
        return np.bincount(labels)
    return np.bincount(np.unique(np.stack([labels, groups]), axis=1)[0])


def times(labels: Ints, groups: Ints | None) -> Ints:
    """How often each image is there under its label, [n]."""
    if groups is None:
        return np.ones_like(labels)
    _, number, counts = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True, return_counts=True)
    return np.asarray(counts[number.ravel()], np.int64)


def with_others(labels: Ints, groups: Ints | None) -> NDArray[np.bool_]:
    """[n]: the images whose class, and those of all their copies, have an image besides them."""
    alone = different(labels, groups)[labels] < 2
    return ~alone if groups is None else ~np.isin(groups, groups[alone])


def groups_of_several(groups: Ints | None) -> list[NDArray[np.intp]]:
    """Positions of the copies of each image that has some, one array [g, m] for each number m of copies."""
    if groups is None:
        return []
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    return [order[first[counts == size][:, None] + np.arange(size)] for size in np.unique(counts[counts > 1])]


def of_several_labels(labels: Ints, groups: Ints | None) -> list[NDArray[np.intp]]:
    """Positions of the copies of each image whose copies disagree about its label."""
    return [rows for block in groups_of_several(groups) for rows in block if np.ptp(labels[rows])]


def held_out_parts(labels: Ints, groups: Ints | None, splits: int, seed: int) -> list[NDArray[np.intp]]:
    """Positions that each part of a cross-validation holds out, stratified by class; copies are in one part.

    Images whose copies disagree about the label count as of the first one's; one that would take the last image of a
    class along is not held out. Fewer parts, or none, where no class has an image for each.
    """
    from sklearn.model_selection import StratifiedKFold

    if groups is None:
        cutter = StratifiedKFold(splits, shuffle=True, random_state=seed)
        return [test for _, test in cutter.split(labels, labels)]
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    splits = min(splits, int(np.bincount(labels[first]).max()))
    if splits < 2:
        return []
    cutter = StratifiedKFold(splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where labels disagree a class may be first in few
        parts = [np.isin(number, test) for _, test in cutter.split(first, labels[first])]
    found = []
    for held in parts:
        lost = np.setdiff1d(labels, labels[~held])
        held &= ~np.isin(groups, groups[np.isin(labels, lost)])
        found.append(np.flatnonzero(held))
    return [rows for rows in found if len(rows)]
