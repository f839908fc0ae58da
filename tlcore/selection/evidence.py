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
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.selection.evidence_curve import RESIDUAL_FLOOR, Curve, SpectralCurve, TridiagonalCurve

__all__ = ["LogEvidence", "log_evidence", "spectrum"]

Float = NDArray[np.float64]
RANK_CUT = 1e-12
"""Eigenvalues below this share of the largest one are rounding, not features."""
TRIDIAGONAL = 256
"""From this many features on it pays to do without eigenvectors, for at most half as many targets."""


@dataclass(frozen=True)
class LogEvidence:
    """Maximum log evidence of K targets.

    Attributes:
        per_row: [K], max_t L(t) / N, in nats.
        ratio: [K], the maximising t = alpha / beta, in squared units of the features; infinite where the
            best model ignores the features.
        rank: eigenvalues that were kept.
        rows: N, as it was given.
        no_signal: [K], the evidence is largest without any feature (t -> infinity).
        interpolates: [K], the features explain the target wholly (S at its floor, t -> 0). With fewer
            eigenvalues than rows the evidence then has no upper bound and the value comes from the floor:
            candidates that all do so cannot be told apart. With as many, the value is the evidence's limit.
    """

    per_row: Float
    ratio: Float
    rank: int
    rows: int
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
    from tlcore.selection.blas import calm_blas

    size = gram.shape[0]
    found = None
    # Decompositions have too little to do for a second BLAS thread, which then burns its time waiting: at 2048
    # features on two cores eigenvectors took 7.9 s of CPU time with two threads and 1.7 s with one.
    with calm_blas(0):
        if TRIDIAGONAL <= size < rows and 2 * squares.size <= size:
            found = _without_eigenvectors(gram, cross, squares, rows)
        return found or _with_eigenvectors(gram, cross, squares, rows)


def _with_eigenvectors(gram: Float, cross: Float, squares: Float, rows: int) -> LogEvidence:
    sigma, along = spectrum(gram, cross, rows)
    scale = float(sigma[-1])
    curve = SpectralCurve(sigma / scale, along**2 / (sigma[:, None] * squares), rows)
    return _evidence(curve, scale, squares, *curve.maximum())


def _without_eigenvectors(gram: Float, cross: Float, squares: Float, rows: int) -> LogEvidence | None:
    """The same from a tridiagonal form, or None where that has too few digits."""
    from scipy.linalg import eigvalsh_tridiagonal
    from scipy.linalg.lapack import dormqr, dsytrd, dsytrd_lwork

    # G is symmetric, so its transpose is G in the column order that LAPACK takes without a copy of its own.
    work = int(dsytrd_lwork(gram.shape[0], lower=1)[0])
    packed, diagonal, beside, tau, failed = dsytrd(gram.T, lower=1, lwork=work)
    if failed:
        return None
    sigma = np.asarray(eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf"), dtype=np.float64)
    scale = float(sigma[-1])
    if not scale > 0:
        _no_variance()
    if sigma[0] < -RANK_CUT * scale:
        return None
    # Q is a product of reflections of all rows but the first: those of a QR factorisation, one row down.
    turned = np.array(cross / np.sqrt(scale * squares), order="F")
    turned[1:] = dormqr("L", "T", packed[1:, :-1], tau, turned[1:], lwork=64 * turned.shape[1])[0]
    curve = TridiagonalCurve(
        sigma[sigma > RANK_CUT * scale] / scale, diagonal / scale, beside / scale, turned, rows
    )
    best, place = curve.maximum()
    if not curve.reliable(place):
        return None
    return _evidence(curve, scale, squares, best, place)


def _evidence(curve: Curve, scale: float, squares: Float, best: Float, place: Float) -> LogEvidence:
    at_infinity = best <= 1e-9  # the grid's upper end stands for infinity to within this
    left = curve.residual_at(np.exp(place), np.arange(place.size))[0]
    null = -0.5 * np.log(2 * math.pi * math.e * squares / curve.rows)
    return LogEvidence(
        per_row=null + np.maximum(best, 0.0),
        ratio=np.where(at_infinity, math.inf, np.exp(place) * scale),
        rank=int(curve.sigma.size),
        rows=curve.rows,
        no_signal=at_infinity,
        interpolates=np.where(at_infinity, 1.0, left) <= 2 * RESIDUAL_FLOOR,
    )


def spectrum(gram: Float, cross: Float, rows: int) -> tuple[Float, Float]:
    """Eigenvalues of F^T F that are features and not rounding, and F^T Y along their vectors.

    Args:
        gram: F^T F, [D, D].
        cross: F^T Y, [D, K].
        rows: N: no more eigenvalues can be real, however many rounding lifts above zero.

    Returns:
        sigma [r], ascending, and V^T F^T Y [r, K].

    Raises:
        UserError: no variance in the features.
    """
    if gram.shape[0] <= 2 * rows:
        sigma, vectors = np.linalg.eigh(gram)
        kept = _features(sigma, rows)
        return sigma[kept], vectors[:, kept].T @ cross
    # Far fewer rows than features: G = P L L^T P^T with L [D, r] by a pivoted Cholesky factorisation that
    # stops at the rank (D r^2 operations, not D^3). L^T L [r, r] = W diag(sigma) W^T has G's eigenvalues, and
    # P L W / sqrt(sigma) are its eigenvectors.
    from scipy.linalg.lapack import dpstrf

    packed, pivots, rank, _ = dpstrf(gram.T, lower=1)
    rank = min(int(rank), rows)
    factor = np.tril(packed[:, :rank])
    sigma, vectors = np.linalg.eigh(factor.T @ factor)
    kept = _features(sigma, rows)
    sigma, vectors = sigma[kept], vectors[:, kept]
    return sigma, (vectors.T @ (factor.T @ cross[pivots - 1])) / np.sqrt(sigma)[:, None]


def _features(sigma: Float, rows: int) -> slice:
    """Which of the ascending eigenvalues are features and not rounding."""
    if not (sigma.size and sigma[-1] > 0):
        _no_variance()
    beyond = int(np.searchsorted(sigma, RANK_CUT * sigma[-1], side="right"))
    return slice(max(beyond, sigma.size - rows), None)


def _no_variance() -> NoReturn:
    raise UserError("the features carry no variance: every image looks the same to this network")
