"""Partial fine-tuning: the last stages and the head, on activations that are computed once."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.plan import HeadFit, Phase


class Partial(NetworkTuner):
    """From the probe, tune the backbone's last stages; what lies below them never changes, and is computed once.

    A few augmented variants of each image stand for fresh augmentation in each epoch. New labels on images like those
    of pretraining ask for the last stages, changes of the images for the first ones, which this leaves alone (Lee et al.
    2023): then use lp-ft.
    """

    card: ClassVar[Card] = Card(
        name="partial",
        summary="From the probe, tune the last stages on cached activations of the frozen ones; a fraction of the cost",
        reference="Yosinski et al. 2014 (transferable layers); Lee et al. 2023 (surgical fine-tuning)",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    stages: int = Field(1, ge=1, le=64, description="stages of the backbone that are tuned, from the last")
    views: int = Field(
        4, ge=1, le=64, description="variants of each image that are cached: itself and augmented ones"
    )
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        groups = self.groups(f"last:{self.stages}")
        return probe(task), self.phase(
            "tune last stages", self.objective(task), groups, inputs="activations", views=self.views
        )


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Partial]
