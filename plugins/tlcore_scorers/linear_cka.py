"""Scorer `linear-cka`: centred kernel alignment of the features with the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.requirements import labelled_moments

if TYPE_CHECKING:
    from tlcore.features.moments import Moments

__all__ = ["LinearCKA", "linear_cka"]


def linear_cka(moments: Moments) -> float:
    """|Y^T F|^2 / (|F^T F| |Y^T Y|) in [0, 1], Frobenius norms, of features F and one-hot classes Y, both centred
    (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", section 3)."""
    present = moments.present
    counts = moments.class_counts[present].astype(np.float64)
    classes = np.diag(counts) - np.outer(counts, counts / moments.n)
    cross = moments.centred_class_sums[present]
    sizes = np.linalg.norm(moments.centred_gram) * np.linalg.norm(classes)
    return float(min((cross**2).sum() / sizes, 1.0))


class LinearCKA(Scorer):
    """How alike images are by their features and by their classes, in [0, 1].

    Biased upwards where images are fewer than features: with ever more features of pure noise it tends to
    sqrt((K - 1) / (n - 1)) for K classes of equal size, and not to 0.
    """

    card: ClassVar[Card] = Card(
        name="linear-cka",
        summary="centred kernel alignment of the features with the one-hot classes, linear kernels",
        reference="Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, section 3",
        traits=frozenset({"rotation-invariant"}),
    )

    def score(self, evidence: Evidence) -> float:
        """`linear_cka`: O(D^2 + K D) in time."""
        return linear_cka(labelled_moments(evidence, self.card.name))


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [LinearCKA]
