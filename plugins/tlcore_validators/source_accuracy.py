"""Source accuracy: choose the checkpoint that is best on the labelled source images it was not trained on."""

from __future__ import annotations

from typing import ClassVar

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs


class SourceAccuracy(Validator):
    """Share of the source validation images whose most probable class is the label, 0 … 1. No look at the target."""

    card: ClassVar[Card] = Card(
        name="source-accuracy",
        summary="Accuracy on the labelled source validation images; says nothing about the target",
        reference="Gulrajani & Lopez-Paz 2021, section 3 (training-domain validation); Musgrave et al. 2022",
        traits=frozenset({"source-data"}),
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        if not len(outputs.source_labels):
            raise UserError("there is no labelled source validation image", where="source-accuracy")
        return float((outputs.source_probabilities.argmax(axis=1) == outputs.source_labels).mean())

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        return 0.0, 1.0


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [SourceAccuracy]
