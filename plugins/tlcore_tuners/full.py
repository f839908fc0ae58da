"""Full fine-tuning: every weight, from the pretrained point."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Group, Move, Phase, TrainPlan


class Full(Tuner):
    """Cross-entropy over all weights; the head, which starts at zero, learns faster than the rest."""

    card: ClassVar[Card] = Card(
        name="full",
        summary="Fine-tune every weight, a larger rate for the new head",
        reference="Kornblith, Shlens & Le 2019, section 3; head rate ten times the base's: Long et al. 2015, section 4.1",
        traits=frozenset({"target-labels"}),
    )

    epochs: int = Field(15, ge=1, le=1000, description="passes over the training images")
    lr: float = Field(3e-4, gt=0, le=1, description="peak learning rate of the backbone (AdamW)")
    head_factor: float = Field(10.0, gt=0, le=1000, description="the head's rate over the backbone's")
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled weight decay")
    batch_size: int = Field(16, ge=2, le=4096, description="images")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    augment: Literal["none", "light", "flip", "strong"] = Field(
        "light",
        description="light: small moves and lighting; flip: mirrors as well; strong: large moves and a blank square",
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        groups = (
            Group("head", self.lr * self.head_factor, self.weight_decay),
            Group("backbone", self.lr, self.weight_decay),
        )
        phase = Phase(
            name="full",
            objective=Supervised(self.smoothing),
            moves=(Move(groups),),
            epochs=self.epochs,
            batch_size=self.batch_size,
            augment=self.augment,
        )
        return TrainPlan((phase,))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Full]
