"""The evidence on all images and on subsets of them, every statistic made once for all scorers.

Scorers with the trait "rotation-invariant" get the images in the coordinates of their own row space
(`rotated`): for n < D the sums then are n x n and not D x D. Scorers with the trait "folds" get moments by
fold. Each combination is made when the first scorer asks for it, and shared by all that want the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import TlcoreError
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence, Scorer
from tlcore.selection.number_evidence import target_folds, target_moments
from tlcore.selection.subsets import MAX_ROWS, rotated

__all__ = ["SharedEvidence", "redraws", "whole"]

Rows = NDArray[np.floating[Any]]
_Made = TypeVar("_Made")
_View = tuple[Evidence, Callable[[], Rows]]
"""Evidence without folds, and its features as exact as there are."""


class SharedEvidence:
    """One set of images, handed to each scorer in the coordinates and with the statistics that it may have.

    Args:
        plain: makes the evidence in the features' own coordinates.
        turned: makes it in coordinates of the row space; None where that gains nothing.
        readers: whether scorers that read features may get them turned too.
    """

    def __init__(
        self, plain: Callable[[], _View], turned: Callable[[], _View] | None, *, readers: bool = True
    ) -> None:
        self._make = {False: plain, True: turned or plain}
        self._kept = frozenset[str]() if readers else frozenset({"features"})
        self._views: dict[bool, _View | TlcoreError] = {}
        self._folded: dict[bool, Evidence | TlcoreError] = {}

    def evidence_for(self, scorer: Scorer) -> Evidence:
        """The evidence for `scorer`.

        Raises:
            TlcoreError: what it needs cannot be made from these images (too few for folds, …).
        """
        turn = "rotation-invariant" in scorer.card.traits and not self._kept & scorer.card.traits
        if turn not in self._views:
            self._views[turn] = _or_error(self._make[turn])
        evidence, features = _raised(self._views[turn])
        if "folds" not in scorer.card.traits or evidence.folds or evidence.regression_folds:
            return evidence
        if turn not in self._folded:
            self._folded[turn] = _or_error(lambda: _with_folds(evidence, features()))
        return _raised(self._folded[turn])


def whole(evidence: Evidence) -> SharedEvidence:
    """All images. Their moments are there already, and are used unless the row space is smaller.

    A scorer with the trait "features" sees the features as they are here, rotation-invariant or not.
    """
    n, dim = evidence.labels.size, evidence.moments.dim
    numbers = evidence.regression is not None and evidence.targets is None
    small = n < dim and n <= 2 * MAX_ROWS and not numbers

    def turned() -> _View:
        rows = rotated(evidence.features())
        every = np.arange(n)
        return _view(evidence, rows, every, evidence.source_probabilities())

    return SharedEvidence(lambda: (evidence, evidence.features), turned if small else None, readers=False)


def redraws(evidence: Evidence, subsets: Sequence[NDArray[np.intp]]) -> Iterator[SharedEvidence]:
    """The images of each subset in turn; one at a time is in memory."""
    features: Rows = evidence.features()
    probabilities = evidence.source_probabilities()
    # Turned once for all subsets: each then costs n^3 and not D^3.
    turned: Rows = rotated(features) if evidence.labels.size <= 2 * MAX_ROWS else features
    for rows in subsets:
        subset = partial(_subset, evidence, rows, None if probabilities is None else probabilities[rows])
        yield SharedEvidence(partial(subset, features, turn=False), partial(subset, turned, turn=True))


def _subset(
    evidence: Evidence,
    rows: NDArray[np.intp],
    mass: NDArray[np.float32] | None,
    features: Rows,
    *,
    turn: bool,
) -> _View:
    part = rotated(features[rows]) if turn else features[rows]
    return _view(evidence, part, rows, mass)


def _view(base: Evidence, features: Rows, rows: NDArray[np.intp], mass: NDArray[np.float32] | None) -> _View:
    """features: of the images `rows` of the base, in coordinates of any kind."""
    single, labels = np.asarray(features, dtype=np.float32), base.labels[rows]
    targets = None if base.targets is None else base.targets[rows]
    made = replace(
        base,
        moments=Moments.of(features, labels, base.moments.classes, mass),
        labels=labels,
        features=lambda: single,
        source_probabilities=lambda: mass,
        folds=(),
        regression=base.regression if targets is None else target_moments(features, targets),
        targets=targets,
        regression_folds=(),
    )
    return made, lambda: features


def _with_folds(evidence: Evidence, features: Rows) -> Evidence:
    from tlcore.features.folds import fold_moments

    if evidence.targets is not None:
        own = target_folds(np.asarray(features), evidence.targets, evidence.labels)
        return replace(evidence, regression_folds=own)
    folds = fold_moments(features, evidence.labels, evidence.moments.classes, evidence.source_probabilities())
    return replace(evidence, folds=folds)


def _or_error(make: Callable[[], _Made]) -> _Made | TlcoreError:
    try:
        return make()
    except TlcoreError as error:
        return error


def _raised(found: _Made | TlcoreError) -> _Made:
    if isinstance(found, TlcoreError):
        raise found
    return found
