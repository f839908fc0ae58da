"""Class AMI: choose the checkpoint whose predictions agree with the clusters of its features."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.evaluation.label_free import cluster_agreement
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs


class ClassAmi(Validator):
    """Agreement of the target's predictions with a clustering of its features, 0 … 1."""

    card: ClassVar[Card] = Card(
        name="class-ami",
        summary="Adjusted mutual information of k-means on the target's features and the predictions",
        reference="Robbiano et al. 2021 (ABAS); as ClassAMI: Musgrave et al. 2022, arXiv:2208.07360",
        traits=frozenset({"target-data"}),
    )

    starts: int = Field(3, ge=1, le=100, description="starts of k-means, the tightest of which counts")

    def score(self, outputs: ValidatorOutputs) -> float:
        n, classes = outputs.target_probabilities.shape
        if not n or len(outputs.target_features) != n:
            raise UserError(
                f"{n} target predictions and {len(outputs.target_features)} features", where="class-ami"
            )
        predictions = outputs.target_probabilities.argmax(axis=1)
        return cluster_agreement(outputs.target_features, predictions, classes, self.starts)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        return 0.0, 1.0


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [ClassAmi]
