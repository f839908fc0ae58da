"""Linear heads solved from features. Standardisation is folded into weight and bias."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError, UserError
from tlcore.training.plan import HeadProblem

__all__ = ["Standard", "logistic_head"]


@dataclass(frozen=True)
class Standard:
    """Mean and spread of features, to bring them to zero mean and unit variance and a head back from there.

    mean: float64 [d]. scale: float64 [d]; infinite for a feature that hardly varies, which would be blown up into
    noise: it becomes 0, and so does its weight.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        features: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        *,
        common: bool = False,
    ) -> Standard:
        """Of the rows of features [n, d].

        weights: how often each row counts [n]; once where None. common: one scale for all features, the root of their
        mean variance: for coordinates whose lengths relative to each other mean something.
        """
        rows = features.astype(np.float64)
        mean = np.average(rows, axis=0, weights=weights)
        spread = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weights))
        if common:
            spread = np.full_like(spread, np.sqrt((spread**2).mean()))
        return cls(mean, np.where(spread > 1e-6 * max(1e-12, float(spread.max())), spread, np.inf))

    def apply(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """(x - mean) / scale, float64 [n, d]."""
        return np.asarray((features.astype(np.float64) - self.mean) / self.scale)

    def unfold(
        self, weight: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The head on features [K, d], [K] that equals the head `weight`, `bias` on `apply(features)`."""
        raw = weight / self.scale
        return raw, bias - raw @ self.mean


def logistic_head(
    problem: HeadProblem,
    *,
    penalties: int,
    folds: int,
    weights: NDArray[np.floating] | None = None,
    common_scale: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]:
    """Multinomial logistic regression, L2 penalty chosen by stratified cross-validation on the log loss.

    Minimises sum_i v_i (-log softmax(W x_i + b)[y_i]) + ||W||^2 / (2 C) over standardised features x; C from a
    log-spaced grid 1e-4 … 1e2 by the mean held-out log loss. With n < d the features are first rotated into
    their n-dimensional row space: the solution lies in it, and each fit costs n instead of d.

    Args:
        problem: features float32 [n, d], labels int64 [n].
        weights: v, float [n]: how often each image counts, in the standardisation and the held-out loss too; an
            image of weight 0 is left out. None: each counts once.
        common_scale: one scale for all features instead of one each, so that the head depends on the lengths of
            coordinates and not on their axes (`Standard.of`).

    Returns:
        weight [K, d], bias [K], {"penalty": 1 / C, "log_loss": held out}. A class without images keeps a
        weight of zero and a bias of -30: it is never predicted.

    Raises:
        UserError: fewer than two classes among the labels.
        PluginError: weights that are none: negative, not finite, or not one per image.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    features, targets = problem.features, problem.labels
    if weights is not None:
        counted = np.asarray(weights, dtype=np.float64)
        if counted.shape != targets.shape or not np.isfinite(counted).all() or counted.min(initial=0) < 0:
            raise PluginError(
                f"the weights of {len(targets)} images are {list(counted.shape)}, or not numbers >= 0"
            )
        kept = counted > 0
        features, targets, weights = features[kept], targets[kept], counted[kept]
    present, labels, counts = np.unique(targets, return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise UserError("a classifier needs at least two classes among the training labels")
    standardisation = Standard.of(features, weights, common=common_scale)
    standard = standardisation.apply(features)
    basis = None
    if standard.shape[0] < standard.shape[1]:
        basis, _ = np.linalg.qr(standard.T)
        standard = standard @ basis

    def weight_of(rows: NDArray[np.intp]) -> NDArray[np.floating] | None:
        return None if weights is None else weights[rows]

    def solve(rows: NDArray[np.intp], strength: float) -> LogisticRegression:
        # Matrices of a few hundred rows are slower on many threads than on one.
        with threadpool_limits(1 if standard.size < 2_000_000 else None), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=strength, max_iter=300).fit(
                standard[rows], labels[rows], weight_of(rows)
            )

    grid = np.logspace(-4, 2, penalties) if penalties > 1 else np.array([1.0])
    splits = min(folds, int(counts.min()))
    held_out: dict[float, float] = {}
    if splits >= 2 and len(grid) > 1:
        cutter = StratifiedKFold(splits, shuffle=True, random_state=problem.seed)
        parts = list(cutter.split(standard, labels))
        for strength in grid:
            losses = [
                log_loss(
                    labels[test],
                    solve(train, strength).predict_proba(standard[test]),
                    labels=np.arange(len(present)),
                    sample_weight=weight_of(test),
                )
                for train, test in parts
            ]
            held_out[float(strength)] = float(np.mean(losses))
        best = min(held_out, key=lambda strength: (held_out[strength], strength))
    else:
        best = float(grid[len(grid) // 2])
    model = solve(np.arange(len(labels)), best)
    solved, offset = np.asarray(model.coef_, float), np.asarray(model.intercept_, float)
    if len(present) == 2:  # one logit for the second class; as two, its sign is shared
        solved, offset = np.vstack([-solved, solved]) / 2, np.concatenate([-offset, offset]) / 2
    if basis is not None:
        solved = solved @ basis.T
    weight = np.zeros((len(problem.classes), features.shape[1]))
    bias = np.full(len(problem.classes), -30.0)
    weight[present], bias[present] = standardisation.unfold(solved, offset)
    notes = {"penalty": 1 / best}
    if held_out:
        notes["log_loss"] = held_out[best]
    return weight, bias, notes
