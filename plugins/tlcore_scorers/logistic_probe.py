"""Logistic probe: held-out likelihood of a linear classifier on the frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample, principal_coordinates, standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Float = NDArray[np.float64]

__all__ = ["LogisticProbe", "fit_all_folds", "stratified_folds"]

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Strongest first, so that each fit starts from a smoother one."""


def stratified_folds(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """[n], the fold of each image: every class, and all images together, spread as evenly as can be."""
    order = np.random.default_rng(seed).permutation(labels.size)
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(labels.size, dtype=np.int64)
    fold[order] = np.arange(labels.size) % folds
    return fold


def fit_all_folds(
    rows: NDArray[np.float64],
    one_hot: NDArray[np.float64],
    train: NDArray[np.float64],
    penalty: float,
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Multinomial logistic regressions of all folds at once: the columns of one matrix product.

    For every fold f, minimises over W_f [r, K] and b_f [K]

        sum_i train[i, f] * (logsumexp(W_f^T x_i + b_f) - (W_f^T x_i + b_f)[y_i]) + penalty / 2 * |W_f|^2.

    Args:
        rows: x, [n, r].
        one_hot: [n, K].
        train: [n, F], 1 / (images of the fold's training part), or 0 where an image is held out.
        start: [r + 1, F, K], the last row for b.

    Returns:
        the parameters, [r + 1, F, K].
    """
    from scipy.optimize import minimize

    found = minimize(
        (problem := _Folds(rows, one_hot, train, penalty)).loss,
        start.ravel(),
        jac=True,
        hessp=problem.curvature,
        method="Newton-CG",  # convex and smooth, with cheap Hessian products: a third of the time of L-BFGS
        options={"xtol": 1e-4, "maxiter": 100},
    )
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


class _Folds:
    """The loss of `fit_all_folds`, its gradient, and its Hessian times a vector."""

    def __init__(self, rows: _Float, one_hot: _Float, train: _Float, penalty: float) -> None:
        self._rows, self._columns = rows, np.ascontiguousarray(rows.T)
        self._train, self._penalty = train, penalty
        self._shape = (len(rows), train.shape[1], one_hot.shape[1])
        self._true = (np.arange(len(rows)), slice(None), one_hot.argmax(axis=1))
        self._seen: tuple[_Float, _Float] | None = None

    def loss(self, flat: _Float) -> tuple[float, _Float]:
        weights = flat.reshape(len(self._columns) + 1, -1)
        logits = self._times(weights)
        logits -= logits.max(axis=2, keepdims=True)
        true = logits[self._true]
        mass = np.exp(logits, out=logits)
        total = mass.sum(axis=2)
        loss = float((self._train * (np.log(total) - true)).sum())
        mass /= total[..., None]
        self._seen = (flat.copy(), mass)
        error = mass * self._train[..., None]
        error[self._true] -= self._train
        return loss + 0.5 * self._penalty * float(np.vdot(weights[:-1], weights[:-1])), self._back(
            error, weights
        )

    def curvature(self, flat: _Float, direction: _Float) -> _Float:
        if self._seen is None or not np.array_equal(self._seen[0], flat):
            self.loss(flat)
        assert self._seen is not None
        mass, along = self._seen[1], direction.reshape(len(self._columns) + 1, -1)
        change = self._times(along) * mass
        change -= mass * change.sum(axis=2, keepdims=True)
        change *= self._train[..., None]
        return self._back(change, along)

    def _times(self, weights: _Float) -> _Float:
        """[n, F, K], the linear function of every fold."""
        logits: _Float = self._rows @ weights[:-1]
        logits += weights[-1]
        return logits.reshape(self._shape)

    def _back(self, error: _Float, weights: _Float) -> _Float:
        """Its transpose, and the slope of the penalty, flat."""
        flat = error.reshape(len(self._rows), -1)
        slope = np.empty_like(weights)
        np.matmul(self._columns, flat, out=slope[:-1])
        slope[:-1] += self._penalty * weights[:-1]
        slope[-1] = flat.sum(axis=0)
        return slope.ravel()


class LogisticProbe(Scorer):
    """Cross-validated log-likelihood per image, in nats, of a logistic regression on the features."""

    card: ClassVar[Card] = Card(
        name="logistic-probe",
        summary="held-out likelihood of a logistic regression, on at most 1,000 images; slow with many classes",
        reference="Kornblith et al. 2019, Do Better ImageNet Models Transfer Better (logistic regression), cross-validated",
        traits=frozenset({"features", "costly"}),
    )

    folds: int = Field(5, ge=2, le=20, description="parts of the images; each is held out once")
    measure: Literal["log-likelihood", "accuracy"] = Field(
        "log-likelihood", description="what is averaged over the held-out images"
    )
    max_images: int = Field(1000, ge=10, le=50_000, description="images of the stratified sample")

    def score(self, evidence: Evidence) -> float:
        """Mean over images of log p(label) (or of being right) by the fold's classifier that never saw it.

        Features are standardised over the sample (no label enters) and scaled to a mean squared length
        of 1; the L2 penalty of 1e-2 … 1e-5 per image is the one with the best held-out likelihood. The fit
        runs in the row space of the features, min(n - 1, D) dimensions, which by the representer theorem
        changes nothing. Classes with one image are left out. O(n min(n, D) K) time per step of the fit.

        Raises:
            UserError: fewer than 2 classes with 2 images; see `tlcore.selection.samples.labelled_sample`.
        """
        from scipy.special import log_softmax

        sample = labelled_sample(evidence, self.max_images, "logistic-probe", per_class=2)
        rows = principal_coordinates(standardised(sample))
        rows /= np.sqrt(np.mean((rows**2).sum(axis=1)))
        n, dim = rows.shape
        folds = min(self.folds, n // 2)
        fold = stratified_folds(sample.labels, folds, evidence.seed)
        train = (fold[:, None] != np.arange(folds)).astype(np.float64)
        train /= train.sum(axis=0)
        weights = np.zeros((dim + 1, folds, sample.classes))
        best, chosen = -np.inf, np.zeros((n, sample.classes))
        for penalty in PENALTIES:
            weights = fit_all_folds(rows, sample.one_hot, train, penalty, weights)
            logits = np.einsum("nr,rfk->nfk", rows, weights[:-1], optimize=True) + weights[-1]
            held_out = log_softmax(logits[np.arange(n), fold], axis=1)
            likelihood = float(held_out[np.arange(n), sample.labels].mean())
            if likelihood <= best:
                break  # the likelihood has one peak along the penalties, but for noise
            best, chosen = likelihood, held_out
        if self.measure == "accuracy":
            return float((chosen.argmax(axis=1) == sample.labels).mean())
        return best


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [LogisticProbe]
