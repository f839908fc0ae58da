"""Linear heads solved from features. Standardisation is folded into weight and bias."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.training.plan import HeadProblem

__all__ = ["logistic_head"]


def logistic_head(
    problem: HeadProblem, *, penalties: int, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]:
    """Multinomial logistic regression, L2 penalty chosen by stratified cross-validation on the log loss.

    Minimises sum_i -log softmax(W x_i + b)[y_i] + ||W||^2 / (2 C) over standardised features x; C from a
    log-spaced grid 1e-4 … 1e2 by the mean held-out log loss. With n < d the features are first rotated into
    their n-dimensional row space: the solution lies in it, and each fit costs n instead of d.

    Args:
        problem: features float32 [n, d], labels int64 [n].

    Returns:
        weight [K, d], bias [K], {"penalty": 1 / C, "log_loss": held out}. A class without images keeps a
        weight of zero and a bias of -30: it is never predicted.

    Raises:
        UserError: fewer than two classes among the labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    present, labels, counts = np.unique(problem.labels, return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise UserError("a classifier needs at least two classes among the training labels")
    features = problem.features.astype(np.float64)
    mean = features.mean(0)
    spread = features.std(0)
    # A feature that hardly varies would be blown up into noise.
    scale = np.where(spread > 1e-6 * max(1e-12, float(spread.max())), spread, np.inf)
    standard = (features - mean) / scale
    basis = None
    if standard.shape[0] < standard.shape[1]:
        basis, _ = np.linalg.qr(standard.T)
        standard = standard @ basis

    def solve(rows: NDArray[np.intp], strength: float) -> LogisticRegression:
        # Matrices of a few hundred rows are slower on many threads than on one.
        with threadpool_limits(1 if standard.size < 2_000_000 else None), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=strength, max_iter=300).fit(standard[rows], labels[rows])

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
    weight[present] = solved / scale
    bias[present] = offset - (solved / scale) @ mean
    notes = {"penalty": 1 / best}
    if held_out:
        notes["log_loss"] = held_out[best]
    return weight, bias, notes
