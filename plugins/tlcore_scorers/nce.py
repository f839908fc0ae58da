"""Scorer `nce`: negative conditional entropy of the classes given the source model's most probable class."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.requirements import joint_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NCE", "negative_conditional_entropy"]


def negative_conditional_entropy(joint: NDArray[np.float64]) -> float:
    """-H(Y | Z) = sum_{y, z} P(y, z) log(P(y, z) / P(z)) in nats, from counts [K, Z] (Tran et al. 2019,
    "Transferability and Hardness of Supervised Classification Tasks", theorem 1). At most 0; at least -log K."""
    shares = joint / joint.sum()
    y, z = np.nonzero(shares)
    found = shares[y, z]
    return float((found * np.log(found / shares.sum(axis=0)[z])).sum())


class NCE(Scorer):
    """How well the source model's most probable class tells the class, in nats."""

    card: ClassVar[Card] = Card(
        name="nce",
        summary="minus the entropy of the classes given the source model's most probable class",
        reference="Tran et al. 2019, Transferability and Hardness of Supervised Classification Tasks, theorem 1",
        traits=frozenset({"source-probabilities"}),
    )

    def score(self, evidence: Evidence) -> float:
        """`negative_conditional_entropy` of the joint counts: O(K Z) in time."""
        return negative_conditional_entropy(joint_counts(evidence, self.card.name, soft=False))


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [NCE]
