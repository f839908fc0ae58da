"""Full fine-tuning: every weight, from the pretrained point."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Tuner
from tlcore.training.network_tuner import NetworkTuner


class Full(NetworkTuner):
    """The supervised loss over all weights; the head, which starts at zero, learns faster than the rest."""

    card: ClassVar[Card] = Card(
        name="full",
        summary="Fine-tune every weight, a larger rate for the new head",
        reference="Kornblith, Shlens & Le 2019, section 3; head rate ten times the base's: Long et al. 2015, section 4.1",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    epochs: int = Field(15, ge=1, le=1000, description="passes over the training images")
    lr: float = Field(3e-4, ge=1e-6, le=0.01, description="peak learning rate of the backbone (AdamW)")
    head_factor: float = Field(10.0, ge=0.1, le=100, description="the head's rate over the backbone's")
    smoothing: float = Field(0.1, ge=0, le=0.3, description="label smoothing")


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Full]
