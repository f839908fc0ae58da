"""How well scores foretold what fine-tuning achieved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlcore.errors import UserError

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """Scores against achieved accuracies.

    Attributes:
        weighted_tau: Kendall's weighted tau in [-1, 1]; None where all scores or all accuracies are equal.
        regret: best accuracy minus the accuracy of the candidate with the highest score (the mean over
            candidates that share it); 0 is best.
        candidates: how many were compared.
    """

    weighted_tau: float | None
    regret: float
    candidates: int


def agreement(scores: Sequence[float], achieved: Sequence[float]) -> Agreement:
    """Kendall's weighted tau and top-1 regret of scores against achieved accuracies.

    tau_w = <s, a> / sqrt(<s, s> <a, a>), <x, y> = sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j) w_ij with
    w_ij = 1 / (1 + r_i) + 1 / (1 + r_j): agreement at the top counts most. The rank r is taken once by
    scores and once by accuracies, ties broken by the other, and the mean of both is given (Vigna 2015,
    "A Weighted Correlation Index for Rankings with Ties"; as `scipy.stats.weightedtau`).

    Raises:
        UserError: fewer than 2 candidates, lengths that differ, or values that are not finite.
    """
    s, a = np.asarray(scores, dtype=np.float64), np.asarray(achieved, dtype=np.float64)
    if s.shape != a.shape or s.ndim != 1 or s.size < 2 or not (np.isfinite(s).all() and np.isfinite(a).all()):
        raise UserError(
            "agreement needs the finite scores and accuracies of the same two or more candidates, "
            f"not {s.size} and {a.size} values"
        )
    signs_s, signs_a = np.sign(s[:, None] - s), np.sign(a[:, None] - a)
    taus: list[float] = []
    for first, second in ((s, a), (a, s)):
        order = np.lexsort((second, first))[::-1]
        share = np.empty(s.size)
        share[order] = 1 / (1 + np.arange(s.size))
        weight = share[:, None] + share
        norm = math.sqrt(float((signs_s**2 * weight).sum()) * float((signs_a**2 * weight).sum()))
        taus.append(float((signs_s * signs_a * weight).sum()) / norm if norm else math.nan)
    tau = sum(taus) / 2
    return Agreement(
        weighted_tau=None if math.isnan(tau) else tau,
        regret=float(a.max() - a[s == s.max()].mean()),
        candidates=int(s.size),
    )
