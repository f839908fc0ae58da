"""How far two domains lie apart, from their features alone. Nobody looks at a label of the target.

Features are float [n, d] of the source and [m, d] of the target. Cheap to import: strategies use it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcore.errors import UserError

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = [
    "Discrepancy", "ProxyADistance", "class_balance_gap", "coral_distance", "density_ratio", "held_out_domain", "mmd",
    "proxy_a_distance",
]  # fmt: skip

LIMIT = 1000
"""Images of a domain that are looked at, or learnt from at a time, where the work would grow with their square."""
STRENGTHS = (0.1, 3.0, 100.0)
"""C of the domain classifier, for rows of mean squared length 1."""
_WHERE = "domain gap"


class ProxyADistance(NamedTuple):
    """distance: 0 (nothing tells the domains apart) … 2 (a hyperplane parts them). error: the held-out balanced error
    that it comes from, 0 … 1."""

    distance: float
    error: float


class Discrepancy(NamedTuple):
    """squared: MMD^2, may fall slightly below 0 where the domains are alike. p_value: share of random partings of the
    pooled images with an MMD^2 at least as large, 1 where the features do not vary."""

    squared: float
    p_value: float


def held_out_domain(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    seed: int = 0,
    folds: int = 5,
    limit: int = LIMIT,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability [n] and [m] that an image is of the target, by a classifier that has not seen this image.

    L2-regularised logistic regression on standardised features; the domains count as equally likely however many
    images they have; the penalty out of three with the least held-out balanced log loss. At most `limit` images of
    each domain are learnt from in each fold.

    Raises:
        UserError: fewer than two images of a domain, features that are not finite or differ in width.
    """
    a, b = _checked(source, target)
    splits = min(folds, len(a), len(b))
    if splits < 2:
        raise UserError("telling domains apart takes at least two images of each", where=_WHERE)
    rng = np.random.default_rng(seed)
    rows, domain = _unit_rows(np.concatenate([a, b])), np.repeat([0, 1], [len(a), len(b)])
    fold = np.concatenate([rng.permutation(np.arange(len(part)) % splits) for part in (a, b)])
    held_out = np.empty((len(STRENGTHS), len(rows)))
    for part in range(splits):
        learnt = np.concatenate(
            [_bounded(np.flatnonzero((fold != part) & (domain == side)), limit, rng) for side in (0, 1)]
        )
        for place, strength in enumerate(STRENGTHS):
            model = _domain_classifier(rows[learnt], domain[learnt], strength)
            held_out[place, fold == part] = model.predict_proba(rows[fold == part])[:, 1]
    likelihood = np.where(domain == 1, held_out, 1 - held_out)
    loss = -np.log(np.maximum(likelihood, 1e-12))
    balanced = loss[:, domain == 0].mean(axis=1) + loss[:, domain == 1].mean(axis=1)
    best = held_out[int(balanced.argmin())]
    return best[: len(a)], best[len(a) :]


def density_ratio(
    source: NDArray[np.floating], target: NDArray[np.floating], *, seed: int = 0, limit: int = LIMIT
) -> NDArray[np.float64]:
    """w(x) = p_target(x) / p_source(x) for each source image [n], by Bayes' rule from `held_out_domain` (Bickel,
    Brueckner & Scheffer 2007). Between 1e-6 and 1e6.

    Raises:
        UserError: as `held_out_domain`.
    """
    likely = np.clip(held_out_domain(source, target, seed=seed, limit=limit)[0], 1e-6, 1 - 1e-6)
    return np.asarray(likely / (1 - likely))


def proxy_a_distance(
    source: NDArray[np.floating], target: NDArray[np.floating], *, seed: int = 0, limit: int = LIMIT
) -> ProxyADistance:
    """2 (1 - 2 err), in [0, 2]; err = held-out balanced error of a linear domain classifier (Ben-David et al. 2007).

    A probability of one half counts as half an error. On at most `limit` images of each domain.

    Raises:
        UserError: as `held_out_domain`.
    """
    a, b = _sampled(source, target, limit, seed)
    p, q = held_out_domain(a, b, seed=seed, limit=limit)
    wrong = ((p > 0.5) + 0.5 * (p == 0.5)).mean(), ((q < 0.5) + 0.5 * (q == 0.5)).mean()
    error = float(sum(wrong) / 2)
    return ProxyADistance(min(2.0, max(0.0, 2 * (1 - 2 * error))), error)


def coral_distance(source: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """||Cs - Ct||_F^2 / (4 d^2), C the unbiased covariance (Sun & Saenko 2016, eq. 1): blind to a shift of the mean.

    Raises:
        UserError: fewer than two images of a domain, features that are not finite or differ in width.
    """
    a, b = _checked(source, target)
    if min(len(a), len(b)) < 2:
        raise UserError("a covariance takes at least two images of each domain", where=_WHERE)
    width = a.shape[1]
    first, second = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (a, b))
    return float(((first - second) ** 2).sum() / (4 * width**2))


def mmd(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    seed: int = 0,
    limit: int = LIMIT,
    permutations: int = 200,
) -> Discrepancy:
    """Unbiased squared maximum mean discrepancy, and its permutation test (Gretton et al. 2012, eq. 3 and section 5).

    sum_{i != j} k(s_i, s_j) / n(n-1) + sum_{i != j} k(t_i, t_j) / m(m-1) - 2 sum_ij k(s_i, t_j) / nm, where k is the
    mean of five Gaussians exp(-||x - y||^2 / 2h^2), h = median distance of the pooled images times 1/4, 1/2, 1, 2, 4.
    On at most `limit` images of each domain.

    Raises:
        UserError: fewer than two images of a domain, features that are not finite or differ in width.
    """
    a, b = _sampled(source, target, limit, seed)
    if min(len(a), len(b)) < 2:
        raise UserError("an unbiased MMD takes at least two images of each domain", where=_WHERE)
    pooled = np.concatenate([a, b])
    pooled = pooled - pooled.mean(axis=0)
    lengths = (pooled**2).sum(axis=1)
    squared = np.maximum(lengths[:, None] + lengths - 2 * pooled @ pooled.T, 0)
    apart = squared[np.triu_indices(len(pooled), 1)]
    # rounding leaves a trace between equal rows; copies of a few images can have a median of 0
    apart = apart[apart > 1e-12 * max(float(lengths.max()), 1e-300)]
    if not apart.size:
        return Discrepancy(0.0, 1.0)
    bandwidth = float(np.median(np.sqrt(apart))) ** 2
    kernel = np.zeros_like(squared)
    for factor in (1 / 16, 1 / 4, 1, 4, 16):
        kernel += np.exp(squared / (-2 * factor * bandwidth))
    kernel /= 5
    np.fill_diagonal(kernel, 0)
    member = np.zeros((len(pooled), permutations + 1))
    member[: len(a), 0] = 1
    rng = np.random.default_rng(seed)
    for column in range(1, permutations + 1):
        member[rng.permutation(len(pooled))[: len(a)], column] = 1
    values = _partings(kernel, member, len(a), len(b))
    # the parting that was observed is one of them (Phipson & Smyth 2010)
    return Discrepancy(float(values[0]), float((values >= values[0] - 1e-12).mean()))


def class_balance_gap(first: ArrayLike, second: ArrayLike) -> float:
    """Total variation distance of two class distributions, 1/2 sum_k |p_k - q_k|: 0 (same shares) … 1 (no class in
    common). Counts or shares [K]; both are brought to sum 1.

    Raises:
        UserError: vectors of different length, negative entries, or nothing counted.
    """
    p, q = (np.asarray(shares, dtype=np.float64) for shares in (first, second))
    for part in (p, q):
        if (
            part.ndim != 1
            or part.shape != p.shape
            or not np.isfinite(part).all()
            or (part < 0).any()
            or not part.sum() > 0
        ):
            raise UserError(
                f"no two class distributions: {list(p.shape)} and {list(q.shape)}, entries >= 0 that sum to more than 0",
                where=_WHERE,
            )
    return float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)


def _partings(
    kernel: NDArray[np.float64], member: NDArray[np.float64], n: int, m: int
) -> NDArray[np.float64]:
    """Unbiased MMD^2 of each column of `member` [n + m, p] (1: first sample), kernel without its diagonal."""
    towards = kernel @ member
    within = (member * towards).sum(axis=0)
    across = ((1 - member) * towards).sum(axis=0)
    others = kernel.sum() - within - 2 * across
    return np.asarray(within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m))


def _domain_classifier(
    rows: NDArray[np.float64], domain: NDArray[np.int64], strength: float
) -> LogisticRegression:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # a handful of steps: threads cost more than they save
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, class_weight="balanced", max_iter=200).fit(rows, domain)


def _unit_rows(pooled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised features, rows of mean squared length 1, in their row space where that is the smaller one."""
    centred = pooled - pooled.mean(axis=0)
    spread = centred.std(axis=0)
    # A feature that hardly varies would be blown up into noise.
    varies = spread > 1e-6 * max(1e-12, float(spread.max()))
    if not varies.any():
        return np.zeros((len(pooled), 1))
    rows = centred[:, varies] / spread[varies] / math.sqrt(varies.sum())
    if len(rows) < rows.shape[1]:
        basis, _ = np.linalg.qr(rows.T)
        rows = rows @ basis
    return np.asarray(rows)


def _bounded(places: NDArray[np.intp], limit: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return places if len(places) <= limit else np.sort(rng.choice(places, limit, replace=False))


def _sampled(
    source: NDArray[np.floating], target: NDArray[np.floating], limit: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    a, b = _checked(source, target)
    return a[_bounded(np.arange(len(a)), limit, rng)], b[_bounded(np.arange(len(b)), limit, rng)]


def _checked(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = (np.asarray(part, dtype=np.float64) for part in (source, target))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise UserError(
            f"features are {list(a.shape)} and {list(b.shape)}, not [n, d] and [m, d]", where=_WHERE
        )
    for name, part in (("source", a), ("target", b)):
        if not np.isfinite(part).all():
            raise UserError(f"the {name} has features that are not finite", where=_WHERE)
    return a, b
