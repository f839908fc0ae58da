"""TransRate: how much coding length the labels save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample, principal_coordinates

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TransRate", "coding_rate"]

IMAGES_PER_AXIS = 4
"""Of a class, on average: with fewer images than axes its coding rate tells how many they are, not how alike."""


def coding_rate(rows: NDArray[np.float64], distortion: float) -> float:
    """R(F, eps) = 1/2 log det(I + F^T F / (n eps)), in nats, by the smaller one of F^T F and F F^T."""
    n, dim = rows.shape
    gram = rows.T @ rows if dim <= n else rows @ rows.T
    _, value = np.linalg.slogdet(np.eye(len(gram)) + gram / (n * distortion))
    return float(value) / 2


class TransRate(Scorer):
    """Mutual information of features and labels by coding rates, R(F) - R(F | Y), in nats, at least 0."""

    card: ClassVar[Card] = Card(
        name="transrate",
        summary="coding rate that the labels save, on up to 64 principal axes of at most 2,000 images",
        reference="Huang et al. 2022, Frustratingly Easy Transferability Estimation (TransRate), coding rates",
        traits=frozenset({"features", "rotation-invariant"}),
    )

    distortion: float = Field(
        1e-4,
        ge=1e-12,
        le=1.0,
        description="eps, in units of the features' total variance; never varied by data",
    )
    axes: int = Field(
        64,
        ge=1,
        le=4096,
        description="principal axes at most; fewer where a class has under 4 images per axis",
    )
    max_images: int = Field(2000, ge=10, le=50_000, description="images of the stratified sample")

    def score(self, evidence: Evidence) -> float:
        """R(F, eps) - sum_k n_k / n R(F_k, eps), F centred, F_k the rows of class k about the same centre.

        Features are divided by one number, so that their total variance is 1: eps then means the same for
        every network. The classes are weighed by their share (the paper's listing gives each 1 / K, which is
        the same for classes of equal size), and so the score is never negative. R(F | Y) needs a Gram matrix
        per class, hence the projection on the first principal axes: O(K axes^3 + n axes^2) after the PCA.
        As in the paper, a class is not centred on its own mean: of two classes of equal size on either side
        of the common centre the score cannot see what parts them.

        The number of axes follows the class sizes and so is the same for every network with that many features.

        Raises:
            UserError: see `tlcore.selection.samples.labelled_sample`.
        """
        sample = labelled_sample(evidence, self.max_images, "transrate")
        axes = max(1, min(self.axes, len(sample.labels) // (IMAGES_PER_AXIS * sample.classes)))
        rows = principal_coordinates(sample.features, limit=axes)
        rows /= np.sqrt(np.mean((sample.features**2).sum(axis=1)))
        within = math.fsum(
            count * coding_rate(rows[sample.labels == code], self.distortion)
            for code, count in enumerate(sample.counts.tolist())
        )
        return coding_rate(rows, self.distortion) - within / len(rows)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [TransRate]
