"""Ridge regression heads in closed form, the penalty chosen by leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.features.regression import RegressionMoments
from tlcore.training.calibrated import class_scale, tag_scale
from tlcore.training.copies import copies_in, groups_of_several
from tlcore.training.head_inputs import Float, Standard, few_threads, labelled, widened
from tlcore.training.plan import HeadProblem, Solved

__all__ = ["ridge_head", "ridge_weights"]

LEAST, MOST = -6.0, 2.0
"""Decades of the penalties, as shares of the largest eigenvalue of the features' Gram matrix."""


def ridge_weights(moments: Moments | RegressionMoments, penalty: float) -> tuple[Float, Float]:
    """The ridge regression of targets on features, from sums over images alone.

    Minimises ||Y - X W^T - 1 b^T||^2 + penalty ||W||^2 over features X [n, d] in units of the root of their mean
    variance: with Xc and Yc centred W^T = (Xc^T Xc + penalty I)^-1 Xc^T Yc (Hoerl & Kennard 1970; Hastie et al. 2009,
    eq. 3.44). Y is one-hot for `Moments`, whose absent classes get weight and bias 0.

    Returns:
        weight [K, d], bias [K] on the raw features.
    """
    if isinstance(moments, Moments):
        mean, gram = moments.mean, moments.centred_gram
        cross, centre = moments.centred_class_sums, moments.class_counts / moments.n
    else:
        mean, gram = moments.mean, moments.centred_gram
        cross, centre = moments.centred_cross.T, moments.target_mean
    standard = Standard.from_moments(mean, np.maximum(np.diagonal(gram), 0) / moments.n, common=True)
    inverse = 1 / standard.scale
    square = gram * np.outer(inverse, inverse)
    square[np.diag_indices_from(square)] += penalty
    weight = np.linalg.solve(square, inverse[:, None] * cross.T).T
    return standard.unfold(np.asarray(weight, np.float64), np.asarray(centre, np.float64))


def ridge_head(problem: HeadProblem, *, penalties: int) -> Solved:
    """The ridge regression (`ridge_weights`) whose penalty has the least squared leave-one-out error.

    With the centred features Xc = U S V^T, one scale for all of them, the residual of image i when it is left out is
    (y - f)_i / (1 - h_ii), h_ii = 1/n + sum_j U_ij^2 s_j^2 / (s_j^2 + t) (Allen 1974; Hastie et al. 2009, eq. 7.64),
    and those of copies that are left out together (I - H_gg)^-1 (y - f)_g, H_gg their block of that matrix: one
    eigendecomposition of the smaller of n x n and d x d serves all penalties t, a log-spaced grid of 1e-6 … 1e2
    of the largest s^2. Classes: one-hot targets; the outputs are multiplied by the one number with the least
    leave-one-out log loss of their softmax, so that it means something. Only images of classes with two or more are
    asked. Tags: the same by the sigmoid, with an offset for each tag. Numbers: nothing more.

    Returns:
        a linear head [K, d], [K]; notes: "penalty" (t), "scale" of the logits and "log_loss", or "r2" of numbers, both
        by leave-one-out. A class or tag without images has weight 0 and bias -30.

    Raises:
        UserError: fewer than two classes, numbers or tags that are all the same, features that do not vary or are not finite.
    """
    with few_threads(problem.features.size):
        if problem.task == "classification":
            return _classes(problem, penalties)
        return _numbers(problem, penalties) if problem.task == "regression" else _tags(problem, penalties)


def _classes(problem: HeadProblem, penalties: int) -> Solved:
    known = labelled(problem, "ridge")
    targets = np.eye(len(known.present))[known.labels]
    several = known.asked
    fit = _Ridge.of(problem.features, targets, known.groups)
    penalty = fit.best(penalties, several)
    scale, loss = class_scale(fit.left_out(penalty), known.labels, several)
    weight, bias = fit.head(penalty)
    bias += targets.mean(0)
    whole = widened(scale * weight, scale * bias, known.present, len(problem.classes))
    return _solved(*whole, penalty=penalty, scale=scale, log_loss=loss)


def _numbers(problem: HeadProblem, penalties: int) -> Solved:
    targets = np.asarray(problem.labels, np.float64)[:, None]
    _check(problem, targets)
    spread = targets.std()
    fit = _Ridge.of(problem.features, targets, copies_in(problem))
    penalty = fit.best(penalties)
    error = targets - fit.left_out(penalty)
    weight, bias = fit.head(penalty)
    bias += targets.mean(0)
    return _solved(weight, bias, penalty=penalty, r2=1 - float((error**2).mean() / spread**2))


def _tags(problem: HeadProblem, penalties: int) -> Solved:
    tags = np.asarray(problem.labels, np.float64)
    varied = np.flatnonzero(np.ptp(tags, axis=0) > 0)
    _check(problem, tags[:, varied])
    fit = _Ridge.of(problem.features, tags[:, varied], copies_in(problem))
    penalty = fit.best(penalties)
    scale, offset, loss = tag_scale(fit.left_out(penalty) - tags[:, varied].mean(0), tags[:, varied])
    weight, bias = fit.head(penalty)
    whole, beside = widened(scale * weight, scale * bias + offset, varied, tags.shape[1], balanced=False)
    beside[tags.all(0)] = np.log(2 * len(tags) + 1)  # always there: (n + 1/2) / 1/2, as odds
    return _solved(whole, beside, penalty=penalty, scale=scale, log_loss=loss)


def _check(problem: HeadProblem, targets: Float) -> None:
    if not np.isfinite(targets).all() or not np.isfinite(problem.features).all():
        raise UserError("the labels or the features hold values that are not finite", where="ridge")
    if targets.size == 0 or not np.ptp(targets, axis=0).any():
        raise UserError(
            "the labels of all training images are the same: there is nothing to learn", where="ridge"
        )
    if not np.ptp(problem.features, axis=0).any():
        raise UserError(
            "the features of all training images are the same", where="ridge", hint="choose another model"
        )


def _solved(weight: Float, bias: Float, **notes: float) -> Solved:
    return Solved({"weight": weight, "bias": bias}, notes=notes)


@dataclass(frozen=True)
class _Ridge:
    """The regressions of centred targets on standardised features, for any penalty.

    left: U [n, r]. square: s^2 [r]. standard: the features' mean and scale. targets [n, K]; along: U^T Yc [r, K];
    rows: standardised features [n, d]. beside: Yc less its part in the span of U; free: 1 - 1/n - sum_j U_ij^2.
    together: of copies, for each number m of them, their rows [g, m] and blocks of I - 1/n - U U^T [g, m, m].
    """

    left: Float
    square: Float
    standard: Standard
    rows: Float
    targets: Float
    along: Float
    beside: Float
    free: Float
    together: tuple[tuple[NDArray[np.intp], Float], ...]

    @classmethod
    def of(cls, features: NDArray[np.floating], targets: Float, groups: NDArray[np.int64] | None) -> _Ridge:
        standard = Standard.of(features, common=True)
        rows = standard.apply(features)
        n, d = rows.shape
        square, vectors = np.linalg.eigh(rows @ rows.T if n < d else rows.T @ rows)
        kept = square > 1e-12 * square[-1]
        square, vectors = square[kept], vectors[:, kept]
        left = vectors if n < d else rows @ (vectors / np.sqrt(square))
        centred = targets - targets.mean(0)
        along = left.T @ centred
        free = np.maximum(1 - 1 / n - np.square(left).sum(1), 0)
        together = tuple(
            (block, np.eye(block.shape[1]) - 1 / n - left[block] @ left[block].swapaxes(1, 2))
            for block in groups_of_several(groups)
        )
        return cls(left, square, standard, rows, targets, along, centred - left @ along, free, together)

    def left_out(self, penalty: float) -> Float:
        """What the regression of the other images, copies aside, foretells for each image, [n, K]."""
        return np.asarray(self.targets - self._errors(penalty))

    def best(self, penalties: int, asked: NDArray[np.bool_] | None = None) -> float:
        """The penalty with the least squared leave-one-out error of the images asked; the mean squared length of an
        image where none is."""
        top = float(self.square[-1])
        rows = np.ones(len(self.left), bool) if asked is None else asked
        if penalties == 1 or not rows.any():
            return float(self.square.sum() / len(self.left))
        grid = top * np.logspace(LEAST, MOST, penalties)
        found = [float(np.square(self._errors(penalty)[rows]).sum()) for penalty in grid]
        return float(grid[int(np.argmin(found))])

    def head(self, penalty: float) -> tuple[Float, Float]:
        """Weight [K, d] and bias [K] of the centred targets on the raw features."""
        shrunk = self.along / (self.square + penalty)[:, None]
        weight = (self.rows.T @ (self.left @ shrunk)).T
        return self.standard.unfold(weight, np.zeros(len(weight)))

    def _errors(self, penalty: float) -> Float:
        """Leave-one-out residuals [n, K], without the cancellation of small differences."""
        kept = penalty / (self.square + penalty)
        error = self.beside + self.left @ (kept[:, None] * self.along)
        room = self.free + np.square(self.left) @ kept
        out = error / np.maximum(room, 1e-12)[:, None]
        for rows, base in self.together:
            left = self.left[rows]
            block = base + (left * kept) @ left.swapaxes(1, 2)
            out[rows] = np.linalg.solve(block + 1e-12 * np.eye(rows.shape[1]), error[rows])
        return np.asarray(out)
