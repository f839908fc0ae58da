"""LP-FT: linear probing, then full fine-tuning from the probed head."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.heads import logistic_head
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Group, HeadFit, Move, Phase, TrainPlan


class LpFt(Tuner):
    """First the head alone, in closed form; then every weight at a small rate, from a head that fits.

    A random head sends large gradients into good features and distorts them; a fitted one does not.
    The probe itself stays a candidate: the second phase is kept only where validation prefers it.
    """

    card: ClassVar[Card] = Card(
        name="lp-ft",
        summary="Linear probe, then fine-tune everything from it; keeps pretrained features from being distorted",
        reference="Kumar, Raghunathan, Jones, Ma & Liang 2022 (LP-FT), section 3",
        traits=frozenset({"target-labels"}),
    )

    epochs: int = Field(5, ge=1, le=1000, description="passes over the training images in the second phase")
    lr: float = Field(1e-4, gt=0, le=1, description="peak learning rate of the second phase (AdamW)")
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled weight decay")
    batch_size: int = Field(16, ge=2, le=4096, description="images")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")
    augment: Literal["none", "light", "flip", "strong"] = Field(
        "light",
        description="light: small moves and lighting; flip: mirrors as well; strong: large moves and a blank square",
    )
    penalties: int = Field(
        7, ge=1, le=50, description="penalty strengths the probe tries, log-spaced from 1e-4 to 1e2"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        tune = Phase(
            name="fine-tune",
            objective=Supervised(self.smoothing),
            moves=(Move((Group("all", self.lr, self.weight_decay),)),),
            epochs=self.epochs,
            batch_size=self.batch_size,
            augment=self.augment,
            frozen_statistics=self.frozen_statistics,
        )
        return TrainPlan((HeadFit("probe", partial(logistic_head, penalties=self.penalties, folds=5)), tune))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [LpFt]
