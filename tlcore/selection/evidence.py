"""Exact maximum evidence of Bayesian linear regression, from inner products alone.

The model of LogME (You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer
Learning", section 4): y = F w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta), so

    y ~ N(0, I / beta + F F^T / alpha),

and the score is the log density of y, maximised over alpha and beta. With N rows, the eigenvalues
sigma of F^T F, the projections x = U^T y (U the left singular vectors of F), r0 = |y|^2 - |x|^2 and
t = alpha / beta, the best beta for a given t is N / S(t), and what is left depends on t alone:

    L(t) = -(N/2) log(2 pi e S(t) / N) - 1/2 sum_j log(1 + sigma_j / t)
    S(t) = r0 + sum_j x_j^2 t / (sigma_j + t)

L is maximised over log t for all targets at once. There is no epsilon and no fixed point that may not
converge; multiplying all features by a number changes nothing. The number of features enters only
through sigma, which is why N < D is right here: the usual code keeps (D/2) log alpha but sums
log(alpha + beta sigma) over the rank only, and so rewards width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError

__all__ = ["LogEvidence", "log_evidence"]

Float = NDArray[np.float64]
GRID = 96
"""Points of the shared grid in log t."""
RANK_CUT = 1e-12
"""Eigenvalues below this share of the largest one are rounding, not features."""
RESIDUAL_FLOOR = 1e-12
"""Smallest S(t), as a share of |y|^2: keeps the evidence finite where features explain the labels wholly."""


@dataclass(frozen=True)
class LogEvidence:
    """Maximum log evidence of K targets.

    Attributes:
        per_row: [K], max_t L(t) / N, in nats.
        ratio: [K], the maximising t = alpha / beta, in squared units of the features; infinite where the
            best model ignores the features.
        rank: eigenvalues that were kept.
        no_signal: [K], the evidence is largest without any feature (t -> infinity).
        interpolates: [K], the features explain the target wholly (S at its floor, t -> 0). With fewer
            eigenvalues than rows the evidence then has no upper bound and the value comes from the floor:
            candidates that all do so cannot be told apart. With as many, the value is the evidence's limit.
    """

    per_row: Float
    ratio: Float
    rank: int
    no_signal: NDArray[np.bool_]
    interpolates: NDArray[np.bool_]


def log_evidence(gram: Float, cross: Float, squares: Float, rows: int) -> LogEvidence:
    """Maximum log evidence per row of K targets under the model above.

    Args:
        gram: F^T F, [D, D].
        cross: F^T Y, [D, K].
        squares: |y_k|^2, [K], all positive.
        rows: N, the degrees of freedom: n for rows as they are; n - 1 for rows centred by their own mean,
            since centred rows fill only n - 1 dimensions (with n there, the evidence of any F of full row
            rank would grow without bound as t -> 0).

    Raises:
        UserError: fewer than 2 rows, no variance in the features, or a target that is constant.
    """
    if rows < 2:
        raise UserError(f"the evidence needs at least 2 degrees of freedom, not {rows}")
    if not (squares > 0).all():
        raise UserError("a target is constant: there is nothing that features could explain")
    sigma, explained = _spectrum(gram, cross, squares, rows)
    scale = float(sigma[-1])
    curve = _Curve(sigma / scale, explained, rows)
    best, place = curve.maximum()
    at_infinity = best <= 1e-9  # the grid's upper end stands for infinity to within this
    share = np.where(at_infinity, 1.0, curve.residual(place))
    null = -0.5 * np.log(2 * math.pi * math.e * squares / rows)
    return LogEvidence(
        per_row=null + np.maximum(best, 0.0),
        ratio=np.where(at_infinity, math.inf, np.exp(place) * scale),
        rank=int(sigma.size),
        no_signal=at_infinity,
        interpolates=share <= 2 * RESIDUAL_FLOOR,
    )


def _spectrum(gram: Float, cross: Float, squares: Float, rows: int) -> tuple[Float, Float]:
    """Kept eigenvalues [r], ascending, and the share of |y|^2 along each of them, [r, K]."""
    sigma, vectors = _eigenbasis(gram, rows)
    if not (sigma.size and sigma[-1] > 0):
        raise UserError("the features carry no variance: every image looks the same to this network")
    kept = sigma > RANK_CUT * sigma[-1]
    sigma, vectors = sigma[kept], vectors[:, kept]
    return sigma, (vectors.T @ cross) ** 2 / (sigma[:, None] * squares)


def _eigenbasis(gram: Float, rows: int) -> tuple[Float, Float]:
    """The largest eigenvalues, ascending, and their vectors [D, r]: no more than N of them can be real,
    however many rounding lifts above zero."""
    if gram.shape[0] <= 2 * rows:
        sigma, vectors = np.linalg.eigh(gram)
        return sigma[-rows:], vectors[:, -rows:]
    # Far fewer rows than features: G = P L L^T P^T with L [D, r] by a pivoted Cholesky factorisation that
    # stops at the rank (D r^2 operations, not D^3), and L's singular vectors are G's eigenvectors.
    from scipy.linalg.lapack import dpstrf

    packed, pivots, rank, _ = dpstrf(gram, lower=1)
    rank = min(int(rank), rows)
    factor = np.empty((gram.shape[0], rank))
    factor[pivots - 1] = np.tril(packed[:, :rank])
    vectors, singular, _ = np.linalg.svd(factor, full_matrices=False)
    return singular[::-1] ** 2, vectors[:, ::-1]


class _Curve:
    """g(u) = (L(e^u) - L(inf)) / N for all targets, with sigma_max = 1 and |y|^2 = 1."""

    def __init__(self, sigma: Float, explained: Float, rows: int) -> None:
        self.sigma, self.explained, self.rows = sigma, explained, rows
        # With as many eigenvalues as rows nothing can be left over; do not let rounding say otherwise.
        rest = np.maximum(1.0 - explained.sum(axis=0), 0.0)
        self.rest = np.zeros_like(rest) if sigma.size >= rows else rest

    def grid(self) -> Float:
        """Places u = log t. Beyond the upper end g differs from its limit 0 by less than 1e-9; below the
        lower end every factor t / (sigma + t) is under the floor of S."""
        return np.linspace(math.log(0.1 * RESIDUAL_FLOOR * self.sigma[0]), math.log(1e9), GRID)

    def on_grid(self, grid: Float) -> tuple[Float, Float]:
        """g and its derivative on a grid [m] shared by all targets: two matrix products, [m, K] each."""
        t = np.exp(grid)[:, None]
        kept = t / (self.sigma + t)
        shrunk = self.sigma / (self.sigma + t)
        left = self.rest + kept @ self.explained
        fall = (kept * shrunk) @ self.explained
        fall[left <= RESIDUAL_FLOOR] = 0.0
        left = np.maximum(left, RESIDUAL_FLOOR)
        penalty = np.log1p(self.sigma / t).sum(axis=1) / (2 * self.rows)
        gain = shrunk.sum(axis=1) / (2 * self.rows)
        return -0.5 * np.log(left) - penalty[:, None], gain[:, None] - 0.5 * fall / left

    def at(self, place: Float, target: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        """g and its first two derivatives at one place [p] each for the targets with index `target` [p]."""
        t = np.exp(place)
        sigma = self.sigma[:, None]
        kept = t / (sigma + t)  # not 1 - shrunk, which loses all digits where t << sigma
        shrunk = sigma / (sigma + t)
        product = kept * shrunk
        energy = self.explained[:, target]
        left = self.rest[target] + np.einsum("rp,rp->p", energy, kept)
        fall = np.einsum("rp,rp->p", energy, product)
        bend = np.einsum("rp,rp->p", energy, product * (shrunk - kept))
        clamped = left <= RESIDUAL_FLOOR
        fall[clamped] = bend[clamped] = 0.0
        left = np.maximum(left, RESIDUAL_FLOOR)
        slope = fall / left
        value = -0.5 * np.log(left) - np.log1p(sigma / t).sum(axis=0) / (2 * self.rows)
        first = -0.5 * slope + shrunk.sum(axis=0) / (2 * self.rows)
        second = -0.5 * (bend / left - slope**2) - product.sum(axis=0) / (2 * self.rows)
        return value, first, second

    def residual(self, place: Float) -> Float:
        """S / |y|^2 at one place per target."""
        t = np.exp(place)
        share: Float = self.rest + (self.explained * (t / (self.sigma[:, None] + t))).sum(axis=0)
        return share

    def maximum(self) -> tuple[Float, Float]:
        """The largest g per target, and where: over the grid and over every peak between its points."""
        grid = self.grid()
        values, slopes = self.on_grid(grid)
        target = np.arange(values.shape[1])
        top = values.argmax(axis=0)
        best, place = values[top, target], grid[top]
        # A peak lies wherever the derivative turns from rising to falling.
        cell, peak = np.nonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
        if cell.size:
            found = self._climb(grid[cell], grid[cell + 1], peak)
            reached = self.at(found, peak)[0]
            for value, where, owner in zip(reached, found, peak, strict=True):
                if value > best[owner]:
                    best[owner], place[owner] = value, where
        return best, place

    def _climb(self, low: Float, high: Float, target: NDArray[np.intp]) -> Float:
        """The peak in each bracket [low, high], by Newton steps, halving where they fail or are slow.

        Ends within 1e-7 in log t, where g is flat: the value is then exact to rounding.
        """
        place = (low + high) / 2
        open_ = np.arange(place.size)
        for round_ in range(48):
            _, first, second = self.at(place[open_], target[open_])
            rising = first > 0
            low[open_[rising]] = place[open_[rising]]
            high[open_[~rising]] = place[open_[~rising]]
            middle = (low[open_] + high[open_]) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = place[open_] - first / second
            inside = (second < 0) & (newton >= low[open_]) & (newton <= high[open_])
            # The floor of S makes a kink, which Newton steps cannot find: halve from round 12 on.
            step = np.where(inside & (round_ < 12), newton, middle)
            near = (np.abs(step - place[open_]) < 1e-7) | (high[open_] - low[open_] < 1e-7)
            place[open_] = step
            open_ = open_[~near]
            if not open_.size:
                break
        return place
