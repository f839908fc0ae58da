"""Information maximisation: choose the checkpoint that is certain about each image and diverse over all."""

from __future__ import annotations

import math
from typing import ClassVar

from tlcore.evaluation.label_free import information_maximisation
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs


class InformationMaximisation(Validator):
    """H(mean p) - mean H(p_i) of the target probabilities, in nats: 0 … log K."""

    card: ClassVar[Card] = Card(
        name="im",
        summary="Mutual information of target image and predicted class: certain on each, diverse over all",
        reference="Krause et al. 2010, eq. 4; as a validator: Musgrave et al. 2022, arXiv:2208.07360",
        traits=frozenset({"target-data"}),
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        return information_maximisation(outputs.target_probabilities)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        return 0.0, math.log(outputs.target_probabilities.shape[1])


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [InformationMaximisation]
