"""How well scores foretold what fine-tuning achieved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError

__all__ = ["Agreement", "agreement", "random_regret", "regret"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Scores against achieved accuracies. All regrets are in the unit of the accuracies; 0 is best.

    Attributes:
        weighted_tau: Kendall's weighted tau in [-1, 1]; None where all scores or all accuracies are equal.
            Its expectation for an order drawn at random is 0.
        regret: `regret` at 1: what taking the candidate with the highest score costs.
        regret_at_3: `regret` at 3: what is lost when the three highest scores go on and the best of them is
            found; None with fewer than 3 candidates.
        random_regret: expectation of `regret` for an order drawn at random.
        random_regret_at_3: expectation of `regret_at_3` for an order drawn at random.
        candidates: how many were compared.
    """

    weighted_tau: float | None
    regret: float
    regret_at_3: float | None
    random_regret: float
    random_regret_at_3: float | None
    candidates: int


def agreement(scores: Sequence[float], achieved: Sequence[float]) -> Agreement:
    """Kendall's weighted tau and the regrets of scores against achieved accuracies, and those of chance.

    tau_w = <s, a> / sqrt(<s, s> <a, a>), <x, y> = sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j) w_ij with
    w_ij = 1 / (1 + r_i) + 1 / (1 + r_j): agreement at the top counts most. The rank r is taken once by
    scores and once by accuracies, ties broken by the other, and the mean of both is given (Vigna 2015,
    "A Weighted Correlation Index for Rankings with Ties"; as `scipy.stats.weightedtau`).

    Raises:
        UserError: fewer than 2 candidates, lengths that differ, or values that are not finite.
    """
    s, a = _pair(scores, achieved)
    if s.size < 2:
        raise _mismatch(s, a)
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
    three = s.size >= 3
    return Agreement(
        weighted_tau=None if math.isnan(tau) else tau,
        regret=regret(scores, achieved, 1),
        regret_at_3=regret(scores, achieved, 3) if three else None,
        random_regret=random_regret(achieved, 1),
        random_regret_at_3=random_regret(achieved, 3) if three else None,
        candidates=int(s.size),
    )


def regret(scores: Sequence[float], achieved: Sequence[float], k: int) -> float:
    """Best accuracy of all candidates minus the best among the k with the highest scores; at least 0.

    Where equal scores leave open which candidates are among the k, the expectation over all choices, each
    as likely: of t candidates that tie for the last q places, the j-th best by accuracy is the best one
    taken with probability C(t - j, q - 1) / C(t, q).

    Raises:
        UserError: no candidate, lengths that differ, values that are not finite, or k outside 1 … candidates.
    """
    s, a = _pair(scores, achieved)
    if not 1 <= k <= s.size:
        raise UserError(
            f"regret at {k} needs at least {max(k, 1)} candidates and k >= 1, not {s.size} candidates"
        )
    edge = np.sort(s)[-k]
    sure, tied = a[s > edge], np.sort(a[s == edge])[::-1]
    open_places = k - sure.size
    ways = math.comb(tied.size, open_places)
    chances = [math.comb(tied.size - j, open_places - 1) / ways for j in range(1, tied.size + 1)]
    floor = float(sure.max()) if sure.size else -math.inf
    taken = sum(
        chance * max(floor, float(best)) for chance, best in zip(chances, tied, strict=True) if chance
    )
    return max(float(a.max()) - taken, 0.0)


def random_regret(achieved: Sequence[float], k: int) -> float:
    """Expected `regret` at k of an order drawn at random, exact: all candidates tie.

    Raises:
        UserError: as `regret`.
    """
    return regret([0.0] * len(achieved), achieved, k)


def _pair(scores: Sequence[float], achieved: Sequence[float]) -> tuple[Float, Float]:
    s, a = np.asarray(scores, dtype=np.float64), np.asarray(achieved, dtype=np.float64)
    if s.shape != a.shape or s.ndim != 1 or not s.size or not (np.isfinite(s).all() and np.isfinite(a).all()):
        raise _mismatch(s, a)
    return s, a


def _mismatch(s: Float, a: Float) -> UserError:
    return UserError(
        "agreement needs the finite scores and accuracies of the same two or more candidates, "
        f"not {s.size} and {a.size} values"
    )
