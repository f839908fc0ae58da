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
    from scipy.special import logsumexp

    folds, classes = train.shape[1], one_hot.shape[1]

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(-1, folds * classes)
        logits = (rows @ weights[:-1] + weights[-1]).reshape(-1, folds, classes)
        total = logsumexp(logits, axis=2, keepdims=True)
        true = (logits * one_hot[:, None, :]).sum(axis=2)
        loss = (train * (total[..., 0] - true)).sum() + penalty / 2 * (weights[:-1] ** 2).sum()
        error = (np.exp(logits - total) - one_hot[:, None, :]) * train[..., None]
        error = error.reshape(len(rows), -1)
        slope = np.vstack([rows.T @ error + penalty * weights[:-1], error.sum(axis=0)])
        return float(loss), slope.ravel()

    found = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-5}
    )
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


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
