"""SFDA: Fisher discriminant analysis that makes its own task harder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shrinkage = Literal["ledoit-wolf", "paper"]

__all__ = ["Sfda", "confident_mixture", "discriminant", "shrinkage_by"]

RANK_CUT = 1e-12
"""Eigenvalues of S_w below this share of the largest one are rounding: there the classes have no scatter."""


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Log-probabilities [n, K] of regularised LDA on its own training rows, and the shrinkage it used."""

    log_probabilities: NDArray[np.float64]
    shrinkage: float


def shrinkage_by(rule: Shrinkage, values: NDArray[np.float64], inner: NDArray[np.float64], dim: int) -> float:
    """How far to shrink S_w towards tr(S_w) / D I, in [0, 1].

    "paper": max(exp(-5 sigma_max), 1e-10), with the exact sigma_max (the authors' code takes three power
    iterations). "ledoit-wolf": the share that minimises the expected squared error (Ledoit & Wolf 2004, "A
    well-conditioned estimator for large-dimensional covariance matrices", section 3), that is
    (mean |x|^4 - |S_w|^2) / n over |S_w - tr(S_w) / D I|^2.

    Args:
        values: eigenvalues of S_w.
        inner: [n, r], rows less the mean of their class.
        dim: D.
    """
    if rule == "paper":
        return max(float(np.exp(-5 * values[-1])), 1e-10)
    squares = float((values**2).sum())
    noise = (float(np.mean((inner**2).sum(axis=1) ** 2)) - squares) / len(inner)
    away = squares - float(values.sum()) ** 2 / dim
    return min(max(noise / away, 0.0), 1.0) if away > 0 else 1.0


def discriminant(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: int,
    dim: int,
    shrinkage: float | Shrinkage,
) -> Discriminant:
    """Linear discriminant analysis with S = (1 - l) S_w + l tr(S_w) / D I, S_w the scatter inside classes / n.

    delta_k(x) = x^T S^-1 mu_k - mu_k^T S^-1 mu_k / 2 + log(n_k / n), probabilities = softmax(delta) (Shao et
    al. 2022, regularised FDA). The generalised eigenproblem of the authors' code keeps every direction and is
    therefore this one linear system.

    Args:
        rows: [n, r], centred; r < D where the rows were turned into their own row space.
        dim: D.
        shrinkage: l itself, or a rule of `shrinkage_by`.
    """
    from scipy.special import log_softmax

    counts = np.bincount(labels, minlength=classes)
    means = (np.eye(classes)[labels].T @ rows) / counts[:, None]
    inner = rows - means[labels]
    values, vectors = np.linalg.eigh(inner.T @ inner / len(rows))
    values = np.where(values > RANK_CUT * values[-1], values, 0.0)
    share = shrinkage if isinstance(shrinkage, float) else shrinkage_by(shrinkage, values, inner, dim)
    # Each class may collapse to a point: then only the floor, in units of the means, is left to divide by.
    least = 1e-12 * float((means**2).sum()) / (classes * dim) + np.finfo(np.float64).tiny
    inverse = 1.0 / ((1.0 - share) * values + max(share * float(values.sum()) / dim, least))
    turned = means @ vectors
    weights = (turned * inverse) @ vectors.T
    offset = -0.5 * (turned**2 * inverse).sum(axis=1) + np.log(counts / len(rows))
    return Discriminant(log_softmax(rows @ weights.T + offset, axis=1), share)


def confident_mixture(
    rows: NDArray[np.float64], labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ConfMix of Shao et al. 2022: q_i x_i + (1 - q_i) * mean of the other classes' means, [n, r].

    q_i is the entry of the label in softmax(probabilities of x_i): the authors soften the probabilities once
    more, which bounds q by e / (e + K - 1). A new array; `rows` stay as they are.
    """
    from scipy.special import softmax

    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    means = (np.eye(classes)[labels].T @ rows) / counts[:, None]
    others = (means.sum(axis=0) - means) / (classes - 1)
    confidence = softmax(probabilities, axis=1)[np.arange(len(rows)), labels][:, None]
    return np.asarray(confidence * rows + (1 - confidence) * others[labels], dtype=np.float64)


class Sfda(Scorer):
    """Mean log-probability of the labels by LDA after its training images were moved towards other classes.

    In-sample: LDA judges the very images it was fitted on. Where these are about as many as the features or fewer it
    fits any labels, with either rule of shrinkage: 60 images with 512 features of noise score -0.003 of at most 0,
    above 16 features that know the classes, and wide networks that know something all round to 0. Compare networks
    of similar width, on several times as many images as features.
    """

    card: ClassVar[Card] = Card(
        name="sfda",
        summary="self-challenging Fisher discriminant, at most 1,000 images; in-sample: overfits with more features than images",
        reference="Shao et al. 2022, Not All Models Are Equal (SFDA): regularised FDA, ConfMix; Ledoit & Wolf 2004",
        traits=frozenset({"features"}),
    )

    measure: Literal["log-probability", "probability"] = Field(
        "log-probability",
        description="mean of log p(label), or of p(label) as the authors' code does, which ties sooner",
    )
    shrinkage: Shrinkage = Field(
        "ledoit-wolf",
        description="of S_w: by Ledoit and Wolf, or the paper's rule; with n < D both overfit, the paper's to a tie",
    )
    max_images: int = Field(1000, ge=10, le=50_000, description="images of the stratified sample")

    def score(self, evidence: Evidence) -> float:
        """LDA, ConfMix with its probabilities, LDA again with the same shrinkage; then the mean over images.

        With the paper's rule l falls to 1e-10 as soon as sigma_max passes 4.6. Where there are fewer images
        than features, and S_w is singular, every label then has probability 1 whatever the network: all tie.
        The default, the shrinkage of Ledoit and Wolf, does not depend on the scale of the features and ties
        later, but for n < D it overfits as well. For n < D all runs in the row space.
        O(min(n, D)^3 + n min(n, D)^2).

        Raises:
            UserError: see `tlcore.selection.samples.labelled_sample`.
        """
        from tlcore.selection.subsets import rotated

        sample = labelled_sample(evidence, self.max_images, "sfda")
        rows, labels = rotated(sample.features), sample.labels
        dim = sample.features.shape[1]
        first = discriminant(rows, labels, sample.classes, dim, self.shrinkage)
        harder = confident_mixture(rows, labels, np.exp(first.log_probabilities))
        second = discriminant(
            harder - harder.mean(axis=0), labels, sample.classes, dim, shrinkage=first.shrinkage
        )
        found = second.log_probabilities[np.arange(labels.size), labels]
        return float((np.exp(found) if self.measure == "probability" else found).mean())


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [Sfda]
