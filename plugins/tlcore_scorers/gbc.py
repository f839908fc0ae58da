"""Scorer `gbc`: Gaussian Bhattacharyya coefficient, the overlap of the classes as Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.requirements import labelled_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcore.features.moments import Moments

__all__ = ["GBC", "bhattacharyya_distances"]


def bhattacharyya_distances(
    moments: Moments, *, spherical: bool = False, floor: float = 1e-3
) -> NDArray[np.float64]:
    """Bhattacharyya distances between the classes that occur, [K, K], each a Gaussian with diagonal covariance:

        B(i, j) = sum_d (mu_id - mu_jd)^2 / (8 v_d) + 1/2 sum_d log(v_d / sqrt(v_id v_jd)),  v = (v_i + v_j) / 2

    (Pandy et al. 2022, "Transferability Estimation using Bhattacharyya Class Separability", section 3).

    v_c is the variance within class c (divisor n_c). A class of one image has none of its own and takes the
    variance within all classes. No variance is below `floor` times that of the feature over all images, since a
    feature that is constant in one class by chance would otherwise decide alone. Features that vary nowhere are
    left out.

    Args:
        spherical: one variance per class, the mean over the features.

    Raises:
        UserError: every class has one image.
    """
    present = moments.present
    counts = moments.class_counts[present].astype(np.float64)[:, None]
    if not (counts > 1).any():
        raise UserError("gbc needs a class with at least 2 images: one image has no variance")
    total = moments.centred_squares / moments.n
    used = total > 1e-13 * (np.diagonal(moments.shifted_gram) / moments.n + 1e-11 * moments.mean**2)
    total = total[used]
    means = moments.shifted_class_sums[present][:, used] / counts
    scatter = np.maximum(moments.shifted_class_squares[present][:, used] - counts * means**2, 0.0)
    pooled = scatter.sum(axis=0) / moments.n
    variances = np.where(counts > 1, scatter / counts, pooled)
    if spherical:
        variances, total = variances.mean(axis=1, keepdims=True), total.mean(keepdims=True)
    variances = np.maximum(variances, floor * total)
    width = means.shape[1] / variances.shape[1]  # features that share one variance
    logs = np.log(variances).sum(axis=1)
    distances = np.zeros((len(means), len(means)))
    for i in range(len(means) - 1):
        middle = (variances[i] + variances[i + 1 :]) / 2
        apart = ((means[i] - means[i + 1 :]) ** 2 / (8 * middle)).sum(axis=1)
        wider = 0.5 * width * (np.log(middle).sum(axis=1) - (logs[i] + logs[i + 1 :]) / 2)
        distances[i, i + 1 :] = distances[i + 1 :, i] = apart + np.maximum(wider, 0.0)
    return distances


class GBC(Scorer):
    """Minus the overlap of all pairs of classes, on a log scale (nats, no fixed scale) unless told otherwise.

    Compare networks of similar width only. B is a sum over features, and each feature adds what the means and
    variances of its classes differ by from chance: about 1 / (2 m) with m images per class, pure noise too. For 200
    images of 5 classes 2048 features of noise so score 23.8, and 128 features from which LDA tells nine in ten
    unseen images 1.6. For this reason it is not in the default panel.
    """

    card: ClassVar[Card] = Card(
        name="gbc",
        summary="minus the overlap of the classes as Gaussians, in nats; grows with width: compare networks of similar width",
        reference="Pandy et al. 2022, Transferability Estimation using Bhattacharyya Class Separability, section 3",
    )

    covariance: Literal["diagonal", "spherical"] = Field(
        "diagonal", description="of each class: a variance per feature, or one for all features"
    )
    log: bool = Field(
        True,
        description="-log of the overlap: the same order, and no overlap too small for a number; false: -overlap",
    )
    floor: float = Field(
        1e-3, gt=0, le=1, description="least variance of a class, as a share of the feature's over all images"
    )

    def score(self, evidence: Evidence) -> float:
        """-sum_{i != j} exp(-B(i, j)), or -log of that sum. O(K^2 D) in time."""
        moments = labelled_moments(evidence, self.card.name)
        distances = bhattacharyya_distances(
            moments, spherical=self.covariance == "spherical", floor=self.floor
        )
        pairs = -distances[~np.eye(len(distances), dtype=bool)]
        top = float(pairs.max())
        log_overlap = top + float(np.log(np.exp(pairs - top).sum()))
        return -log_overlap if self.log else -float(np.exp(log_overlap))


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [GBC]
