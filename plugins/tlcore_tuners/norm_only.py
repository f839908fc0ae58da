"""Norm-only tuning: scales and shifts of the normalisation layers, and the head."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.plan import HeadFit, Phase


class NormOnly(NetworkTuner):
    """From the probe, move weight and bias of every normalisation layer: a thousandth of the parameters or so.

    Few enough for a handful of images, and enough to turn features on and off. They bear a larger rate than matrices
    do; the fitted head moves at the rate that LP-FT gives it.
    """

    card: ClassVar[Card] = Card(
        name="norm-only",
        summary="From the probe, tune the normalisation layers' weights and biases and the head; very few labels",
        reference="Frankle, Schwab & Morcos 2021 (BatchNorm alone); Basu et al. 2024 (LN-Tune, few-shot transformers)",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    lr: float = Field(1e-3, ge=1e-6, le=0.01, description="peak learning rate of the norm layers (AdamW)")
    head_factor: float = Field(0.1, ge=0.1, le=100, description="the head's rate over the norm layers'")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        return probe(task), self.phase("tune norms", self.objective(task), self.groups("norm"))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [NormOnly]
