"""Scorer `ridge-cv`: how well ridge regression on the features foretells the classes of images it has not seen."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.held_out import Part, parts_of
from tlcore.selection.requirements import check_targets, held_out_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcore.features.moments import Moments
    from tlcore.features.regression import RegressionMoments

__all__ = ["RidgeCV", "held_out_error", "held_out_target_error"]

LEAST, MOST = -8.0, 3.0
"""Decades of the penalties, as shares of the largest eigenvalue of the training Gram matrix."""


def held_out_error(
    folds: Sequence[Moments], penalties: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Squared error of ridge regression on one-hot classes, each fold foretold from the others.

    For each fold, with F and Y the other folds' features and one-hot classes, both centred by their own means,
    W = (F^T F + t I)^-1 F^T Y, and with F', Y' the fold's, centred by the same means, the error is

        |Y' - F' W|^2 = |Y'|^2 - 2 <W, F'^T Y'> + <W, F'^T F' W>.

    In the eigenbasis of F^T F that is a quadratic form in 1 / (sigma + t), so one decomposition per fold serves all
    penalties and all classes: O(folds (r^3 + r^2 K)), r = min(n, D). Nothing but moments is needed.

    Args:
        folds: at least two.
        penalties: [P], t as a share of the largest eigenvalue of F^T F of the same fold.

    Returns:
        the error summed over all images and classes, [P]; and what foretelling the other folds' class
        frequencies would give.
    """
    from tlcore.selection.blas import calm_blas

    parts = parts_of(folds)
    whole = sum(parts[1:], start=parts[0])
    error, null = np.zeros(penalties.size), 0.0
    for part in parts:
        train = whole - part
        with calm_blas(0):  # eigenvectors take several times the CPU time with more threads
            fold_error, fold_null = _fold_error(train, part, penalties)
        error += fold_error
        null += fold_null
    return error, null


def _fold_error(train: Part, test: Part, penalties: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    total = train.sums.sum(axis=0)
    mean, share = total / train.n, train.counts / train.n
    sigma, vectors = np.linalg.eigh(train.gram - np.outer(total, mean))
    cross = vectors.T @ (train.sums.T - np.outer(total, share))
    # The held-out images about the training means.
    seen = test.sums.sum(axis=0)
    beside = np.outer(seen, mean)
    gram = test.gram - beside - beside.T + test.n * np.outer(mean, mean)
    target = test.sums.T - np.outer(seen, share) - np.outer(mean, test.counts - test.n * share)
    null = float((test.counts * (1 - 2 * share)).sum() + test.n * (share**2).sum())
    if not sigma[-1] > 0:
        return np.full(penalties.size, null), null  # the training images are all alike: nothing is learnt
    weight = 1.0 / (np.maximum(sigma, 0.0) + penalties[:, None] * sigma[-1])
    agreement = (cross * (vectors.T @ target)).sum(axis=1)
    form = (vectors.T @ gram @ vectors) * (cross @ cross.T)
    found = null - 2 * weight @ agreement + ((weight @ form) * weight).sum(axis=1)
    return np.maximum(found, 0.0), null


def held_out_target_error(
    folds: Sequence[RegressionMoments], penalties: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `held_out_error` for T real targets: the error of each by penalty [P, T], and of the other folds' means [T].

    Args:
        folds: at least two, about the same points (`tlcore.selection.number_evidence.target_folds`).
        penalties: [P], as there.
    """
    from tlcore.selection.blas import calm_blas

    error, null = np.zeros((penalties.size, folds[0].targets)), np.zeros(folds[0].targets)
    for index, test in enumerate(folds):
        train = functools.reduce(operator.add, (fold for place, fold in enumerate(folds) if place != index))
        # The held-out images about the means of the others: then no mean is left to take off.
        seen = test.rebased(train.mean, train.target_mean)
        with calm_blas(0):
            sigma, vectors = np.linalg.eigh(train.centred_gram)
            cross = vectors.T @ train.centred_cross
            target = vectors.T @ seen.shifted_cross
            gram = vectors.T @ seen.shifted_gram @ vectors
        null += seen.shifted_target_squares
        if not sigma[-1] > 0:
            error += seen.shifted_target_squares
            continue
        for place, penalty in enumerate(penalties):
            weight = cross / (np.maximum(sigma, 0.0) + penalty * sigma[-1])[:, None]
            form = (weight * (gram @ weight)).sum(axis=0)
            error[place] += np.maximum(
                seen.shifted_target_squares - 2 * (weight * target).sum(axis=0) + form, 0.0
            )
    return error, null


class RidgeCV(Scorer):
    """Held-out R^2 of ridge regression on one-hot classes, or on numbers and tags; at most 1, about 0 for features that
    say nothing."""

    card: ClassVar[Card] = Card(
        name="ridge-cv",
        summary="held-out R^2 of ridge regression from the features to the one-hot classes, or to numbers",
        reference="Hastie, Tibshirani, Friedman 2009, The Elements of Statistical Learning, 3.4.1 and 7.10",
        traits=frozenset({"folds", "rotation-invariant", "regression"}),
    )

    penalties: int = Field(
        45,
        ge=2,
        le=1000,
        description="strengths of the penalty that are tried, 1e-8 to 1e3 of the Gram matrix",
    )

    def score(self, evidence: Evidence) -> float:
        """1 - error / error of the class frequencies, pooled over all held-out images and classes.

        The penalty is the one with the least held-out error, the same share in all folds. Choosing one number by
        the error that is reported flatters all candidates alike, and little. Of several numbers or tags it is the mean
        over them, with one penalty for all.

        Raises:
            UserError: too few images, classes or folds.
        """
        if evidence.regression is not None:
            return self._score_targets(evidence)
        folds = held_out_folds(evidence, self.card.name)
        error, null = held_out_error(folds, np.logspace(LEAST, MOST, self.penalties))
        return 1.0 - float(error.min()) / null

    def _score_targets(self, evidence: Evidence) -> float:
        assert evidence.regression is not None
        if len(evidence.regression_folds) < 2:
            raise UserError(
                f"{self.card.name} is held out and needs moments of the targets by fold, and this evidence has none",
                hint="make them with tlcore.selection.number_evidence.target_folds",
            )
        check_targets(evidence.regression, self.card.name)
        grid = np.logspace(LEAST, MOST, self.penalties)
        error, null = held_out_target_error(evidence.regression_folds, grid)
        return float((1.0 - error / null).mean(axis=1).max())


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [RidgeCV]
