"""Scorer `lda`: estimated accuracy of linear discriminant analysis on images it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.held_out import Part, parts_of
from tlcore.selection.requirements import held_out_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcore.features.moments import Moments

__all__ = ["LDA", "class_accuracy", "held_out_margins"]

NODES = 24
"""Points of the Gauss-Hermite rule."""
FARTHEST = 1e6
"""Margins of more standard deviations than this count as so many: images of a class that are all alike."""


@dataclass
class _Margins:
    """Sums over held-out images for each ordered pair of classes (a, b), [K, K]."""

    between: NDArray[np.float64]
    offset: NDArray[np.float64]
    images: NDArray[np.float64]
    squares: NDArray[np.float64]
    degrees: NDArray[np.float64]


def held_out_margins(
    folds: Sequence[Moments], strengths: Sequence[float]
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """How far held-out images lie on the right side of each pair's boundary, in standard deviations.

    From the other folds: class means mu_c and S = S_w / n + s tr(S_w / n) / min(n, D) I, S_w the scatter within
    the classes. A held-out image x of class a has the margin (Fisher's discriminant, all classes equally likely)

        (mu_a - mu_b)^T S^-1 (x - (mu_a + mu_b) / 2).

    Its mean over the images of class a comes from their sum. Its variance is that of w^T (x - mu_class(x)),
    w = S^-1 (mu_a - mu_b), over all held-out images: one covariance for all classes, as the model has it. Images
    of a and b are taken about their mean, which lies off the training mean in the direction of w; those of the
    other classes about their training means, whose error is as good as independent of w.

    Args:
        strengths: s, one or more.

    Returns:
        for each strength the ratios mean / standard deviation [K, K] (0 on the diagonal) over the classes with
        at least two images; and those classes' numbers of images, [K].

    Raises:
        UserError: fewer than two classes have two images.
    """
    parts = parts_of(folds)
    whole = sum(parts[1:], start=parts[0])
    kept = whole.counts >= 2
    if kept.sum() < 2:
        raise UserError("lda needs at least 2 classes of 2 images: one to learn from, one to judge by")
    size = whole.counts.size
    sums = [_Margins(*(np.zeros((size, size)) for _ in range(5))) for _ in strengths]
    for part in parts:
        for found, fold in zip(sums, _fold(whole - part, part, strengths), strict=True):
            _add(found, whole.counts - part.counts > 0, part, *fold)
    ratios = []
    for found in sums:
        images = np.maximum(found.images, 1.0)
        own = found.offset**2 / images
        squares = np.maximum(found.squares - own - own.T, 0.0)
        deviation = np.sqrt(squares / np.maximum(found.degrees - 2, 1.0))
        mean = (found.between + found.offset) / images
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(mean / deviation, nan=0.0, posinf=FARTHEST, neginf=-FARTHEST)
        ratios.append(np.clip(ratio, -FARTHEST, FARTHEST)[np.ix_(kept, kept)])
    return ratios, whole.counts[kept]


def _fold(
    train: Part, test: Part, strengths: Sequence[float]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Per strength, over one fold's images, [K, K] each: sums of the margins that class means would have, of
    w^T (x - mu_a), and of the squares of w^T (x - mu_class(x))."""
    from tlcore.selection.blas import calm_blas

    means = train.means
    known = train.counts > 0
    with calm_blas(0):  # eigenvectors take several times the CPU time with more threads
        sigma, vectors = np.linalg.eigh((train.gram - (train.sums.T @ means)) / train.n)
    sigma = np.maximum(sigma, 0.0)
    level = sigma.sum() / min(train.n, sigma.size)
    # A class that the other folds lack teaches nothing: its images are taken about their own mean.
    about = np.where(known[:, None], means, test.means)
    cross = test.sums.T @ about
    scatter = test.gram - cross - cross.T + (about.T * test.counts) @ about
    centres = vectors.T @ means.T
    offsets = (test.sums - test.counts[:, None] * about).T
    for strength in strengths:
        # Without any scatter, one unit is as good as another: the nearest mean decides.
        weights = vectors @ (centres / (sigma + (strength * level if level > 0 else 1.0))[:, None])
        between = means @ weights
        own = np.diagonal(between)
        along = weights.T @ offsets  # [b, a]: w_b^T of the sum of x - mu_a
        half = 0.5 * test.counts[:, None] * (own[:, None] + own - 2 * between)
        offset = np.diagonal(along)[:, None] - along.T
        spread = weights.T @ scatter @ weights
        each = np.diagonal(spread)
        yield half, offset, each[:, None] + each - 2 * spread


def _add(
    found: _Margins,
    known: NDArray[np.bool_],
    part: Part,
    between: NDArray[np.float64],
    offset: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    pairs = known[:, None] & known
    degrees = float(np.where(known, part.counts, np.maximum(part.counts - 1, 0)).sum())
    found.between[pairs] += between[pairs]
    found.offset[pairs] += offset[pairs]
    found.images[pairs] += np.broadcast_to(part.counts[:, None], pairs.shape)[pairs]
    found.squares[pairs] += squares[pairs]
    found.degrees[pairs] += degrees


def class_accuracy(ratios: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability [K] that an image of class a has positive margins against all other classes.

    One pair: the margin is below zero with probability (1 - e) Phi(-z) + e T(-z), z = `ratios` [K, K] and T the
    distribution of Student's t with two degrees of freedom. e = 1 / (images of the class + 1) is the weight that
    so many images leave to what they have not shown (rule of succession), shared out over the other classes:
    with normal tails alone every candidate whose margins are ten standard deviations wide would be exactly 1.

    All pairs: margins against different classes share the score of class a, which correlates them by 1/2, so

        P = integral phi(u) prod_b Phi(sqrt(2) z_b + u) du

    (Dunnett 1955, "A multiple comparison procedure for comparing several treatments with a control"), and 1 - P
    is kept between the largest of the pairs' probabilities and their sum, where it must lie.
    """
    from scipy.special import log_ndtr, ndtr, ndtri

    doubt = 1.0 / ((images + 1.0) * (len(ratios) - 1))[:, None]
    root = np.sqrt(2.0 + ratios**2)
    # The tail T(-z) for z >= 0, without the difference that would lose it, and its mirror image for z < 0.
    tail = 1.0 / (root * (root + np.abs(ratios)))
    wrong = (1 - doubt) * ndtr(-ratios) + doubt * np.where(ratios >= 0, tail, 1 - tail)
    others = ~np.eye(len(ratios), dtype=bool)
    wrong = np.where(others, wrong, 0.0)
    normal = np.sqrt(2.0) * -ndtri(np.where(others, wrong, 0.5))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    error = np.zeros(len(ratios))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        error += weight * -np.expm1(np.where(others, log_ndtr(normal + node), 0.0).sum(axis=1))
    return 1.0 - np.clip(error, wrong.max(axis=1), np.minimum(wrong.sum(axis=1), 1.0))


class LDA(Scorer):
    """Estimated held-out accuracy of shrunk linear discriminant analysis, mean over classes, in [0, 1]."""

    card: ClassVar[Card] = Card(
        name="lda",
        summary="estimated held-out accuracy of shrunk linear discriminant analysis, mean over classes",
        reference="Friedman 1989, Regularized Discriminant Analysis; Dunnett 1955, comparisons with a control",
        traits=frozenset({"folds", "rotation-invariant"}),
    )

    shrinkage: float | None = Field(
        None, gt=0, le=1e6, description="share of the mean variance added in every direction; none: the best"
    )

    def score(self, evidence: Evidence) -> float:
        """Mean of `class_accuracy` over the classes with at least two images.

        The strength of shrinking is the one that scores best of 1e-4, 1e-3, … 1e2. Choosing one number by the
        score that is reported flatters all candidates alike, and little. Classes weigh the same, however many
        images they have. O(folds (r^3 + r^2 K)) in time, r = min(n, D).
        """
        folds = held_out_folds(evidence, self.card.name)
        strengths = [self.shrinkage] if self.shrinkage else [10.0**power for power in range(-4, 3)]
        ratios, images = held_out_margins(folds, strengths)
        return max(float(class_accuracy(ratio, images).mean()) for ratio in ratios)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [LDA]
