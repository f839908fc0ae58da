"""Entropy: choose the checkpoint that is most certain about the target's images."""

from __future__ import annotations

import math
from typing import ClassVar

from tlcore.evaluation.label_free import entropy
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs


class NegatedEntropy(Validator):
    """Minus the mean entropy of the target probabilities, in nats: -log K … 0.

    Blind to collapse: a network that is certain that every image shows the same class has the best score.
    """

    card: ClassVar[Card] = Card(
        name="entropy",
        summary="Minus the mean entropy of the target probabilities; blind to a collapse onto one class",
        reference="Morerio, Cavazza & Murino 2018 (entropy for validation); Musgrave et al. 2022, arXiv:2208.07360",
        traits=frozenset({"target-data"}),
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        # 0.0 and not -0.0 where every image is certain
        return 0.0 - entropy(outputs.target_probabilities)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        return -math.log(outputs.target_probabilities.shape[1]), 0.0


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [NegatedEntropy]
