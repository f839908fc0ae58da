"""LP-FT: linear probing, then full fine-tuning from the probed head."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.plan import HeadFit, Phase


class LpFt(NetworkTuner):
    """First the head alone, in closed form; then every weight at a small rate, from a head that fits.

    A random head sends large gradients into good features and distorts them; a fitted one does not.
    The probe itself stays a candidate: the second phase is kept only where validation prefers it.
    """

    card: ClassVar[Card] = Card(
        name="lp-ft",
        summary="Linear probe, then fine-tune everything from it; keeps pretrained features from being distorted",
        reference="Kumar, Raghunathan, Jones, Ma & Liang 2022 (LP-FT), section 3",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    probed: ClassVar[bool] = True

    epochs: int = Field(5, ge=1, le=1000, description="passes over the training images in the second phase")
    lr: float = Field(1e-4, ge=1e-6, le=0.01, description="peak learning rate of the second phase (AdamW)")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")
    penalties: int = Field(
        7, ge=1, le=50, description="penalty strengths the probe tries, log-spaced from 1e-4 to 1e2"
    )

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        tune = self.phase("fine-tune", self.objective(task), self.groups("backbone"))
        return probe(task, penalties=self.penalties), tune


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [LpFt]
