"""Scorer `leep`: log expected empirical prediction of the classes through the source model's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.requirements import joint_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEEP", "log_expected_prediction"]

BATCH = 4096
"""Rows that are taken to float64 at once."""


def log_expected_prediction(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], mass: NDArray[np.float64]
) -> float:
    """1/n sum_i log sum_z P(y_i | z) theta(x_i)_z in nats (Nguyen et al. 2020, "LEEP: A New Measure to Evaluate
    Transferability of Learned Representations", eq. 2), with P(y, z) = 1/n sum_{i: y_i = y} theta(x_i)_z.

    Args:
        probabilities: theta, [n, Z].
        labels: y, [n].
        mass: n P(y, z), [K, Z].
    """
    given = mass / np.maximum(mass.sum(axis=0), np.finfo(np.float64).tiny)
    total = 0.0
    for start in range(0, len(labels), BATCH):
        theta = np.asarray(probabilities[start : start + BATCH], dtype=np.float64)
        expected = np.einsum("nz,nz->n", theta, given[labels[start : start + BATCH]])
        # The image itself is in P(y, z), so its own class is never impossible.
        total += float(np.log(expected).sum())
    return total / len(labels)


class LEEP(Scorer):
    """Mean log likelihood of the classes when foretold through the source classes, in nats."""

    card: ClassVar[Card] = Card(
        name="leep",
        summary="mean log likelihood of the classes, foretold through the source model's probabilities",
        reference="Nguyen et al. 2020, LEEP, eq. 1 and 2",
        traits=frozenset({"source-probabilities"}),
    )

    def score(self, evidence: Evidence) -> float:
        """`log_expected_prediction`: at most 0; O(n Z) in time."""
        mass = joint_counts(evidence, self.card.name, soft=True)
        probabilities = evidence.source_probabilities()
        if probabilities is None or len(probabilities) != evidence.labels.size:
            raise UserError("leep needs the source probabilities of every image")
        return log_expected_prediction(probabilities, evidence.labels, mass)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [LEEP]
