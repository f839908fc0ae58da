"""Training from random weights: what pretraining has to be better than."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Tuner
from tlcore.training.network_tuner import NetworkTuner


class Scratch(NetworkTuner):
    """Every weight from a random start: for images that no pretrained network has seen the like of, and as a baseline.

    Longer and with more decay than fine-tuning; with few labels still far from converged features.
    """

    card: ClassVar[Card] = Card(
        name="scratch",
        summary="Train the same architecture from random weights; a baseline, and for images unlike any pretraining",
        reference="He, Girshick & Dollar 2019 (rethinking ImageNet pre-training); Brigato & Iocchi 2021 (small data)",
        traits=frozenset({"target-labels", "random-start", "regression", "multi-label"}),
    )

    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training images")
    lr: float = Field(1e-3, ge=1e-6, le=0.01, description="peak learning rate (AdamW)")
    weight_decay: float = Field(0.05, ge=0, le=0.3, description="decoupled; not on biases and norm layers")
    smoothing: float = Field(0.1, ge=0, le=0.3, description="label smoothing")


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Scratch]
