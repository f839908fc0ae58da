"""kNN: what the nearest neighbours of an image, itself left out, say about its label."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KNearestNeighbours", "leave_one_out_votes"]

BLOCK = 1024
"""Images whose similarities to all others are held at once: 4 MB for each thousand images of the sample."""


def leave_one_out_votes(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    neighbours: int,
    temperature: float,
) -> NDArray[np.float64]:
    """[n, K], the share of each class in the votes of an image's nearest neighbours; each row sums to 1.

    A neighbour j of image i votes for its own class with weight exp(cos(f_i, f_j) / temperature), i itself
    excluded (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    section 3.4). All images as near as the k-th are neighbours, so that the order of rows decides nothing.
    A feature vector of length zero has similarity 0 with every image. Similarities are float32.

    Args:
        features: [n, D].
        labels: [n], 0 … K-1.
        neighbours: k; all other images where there are no more.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, length, out=np.zeros(features.shape), where=length > 0).astype(np.float32)
    one_hot = np.eye(classes, dtype=np.float32)[labels]
    n = len(unit)
    k = min(neighbours, n - 1)
    votes = np.empty((n, classes))
    for start in range(0, n, BLOCK):
        near = unit[start : start + BLOCK] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        # Rounding in the product must not part images that are equally near.
        near = np.round(near, 6)
        bar = np.partition(near, n - k, axis=1)[:, n - k, None]
        weight = np.exp((near - near.max(axis=1, keepdims=True)) / np.float32(temperature))
        votes[start : start + BLOCK] = np.where(near >= bar, weight, np.float32(0)) @ one_hot
    return np.asarray(votes / votes.sum(axis=1, keepdims=True), dtype=np.float64)


class KNearestNeighbours(Scorer):
    """Share of the votes of the k nearest images (cosine, leave-one-out) for the true class, in [0, 1]."""

    card: ClassVar[Card] = Card(
        name="knn",
        summary="leave-one-out vote of the nearest neighbours for the true class, on at most 2,000 images",
        reference="Wu et al. 2018, Unsupervised Feature Learning via Instance Discrimination, section 3.4",
        traits=frozenset({"features", "rotation-invariant"}),
    )

    neighbours: int = Field(10, ge=1, le=1000, description="k, images that vote")
    temperature: float = Field(
        0.07, ge=0.01, le=100.0, description="a vote weighs exp(cosine / temperature); large: all votes equal"
    )
    measure: Literal["vote", "accuracy"] = Field(
        "vote", description="mean share of the votes for the true class, or how often it has the most votes"
    )
    max_images: int = Field(2000, ge=10, le=50_000, description="images of the stratified sample")

    def score(self, evidence: Evidence) -> float:
        """Mean share s of the votes for the true class; or accuracy a + s / (n + 1).

        The share is an accuracy without its steps of 1 / n: on small sets it orders networks with less
        noise. With "accuracy", s weighs less than one step and thus only orders networks that are right
        equally often. Features are centred by their mean first, so that an offset does not hide angles.
        O(n^2 D) time, O(n) memory beside the sample.

        Raises:
            UserError: see `tlcore.selection.samples.labelled_sample`.
        """
        sample = labelled_sample(evidence, self.max_images, "knn")
        votes = leave_one_out_votes(
            sample.features, sample.labels, sample.classes, self.neighbours, self.temperature
        )
        n = sample.labels.size
        share = float(votes[np.arange(n), sample.labels].mean())
        if self.measure == "vote":
            return share
        return float((votes.argmax(axis=1) == sample.labels).mean()) + share / (n + 1)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [KNearestNeighbours]
