"""MLP head: one hidden dense layer and a classifier on the frozen network's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Bottleneck, Group, Move, Phase, Setup, TrainPlan

if TYPE_CHECKING:
    from torch import nn

NEVER = -30.0
"""Bias of a class without images: its probability and its gradient are nil."""


class OfPresentClasses(Supervised):
    """The supervised loss; classes without images start from a bias that no step brings back."""

    def setup(self, setup: Setup) -> nn.Module | None:
        import torch

        head, counts = setup.network.head, setup.task.counts
        if setup.task.task == "classification" and isinstance(head, torch.nn.Linear):
            absent = [k for k, count in enumerate(counts) if count == 0]
            with torch.no_grad():
                head.weight[absent] = 0
                head.bias[absent] = NEVER
        return super().setup(setup)


class MlpHead(Tuner):
    """The classic small classifier on a frozen base: 256 units, ReLU, half of them dropped while it learns.

    The features are computed once, so that an epoch takes a moment. The epoch that validation likes best is kept.
    """

    card: ClassVar[Card] = Card(
        name="mlp-head",
        summary="One hidden dense layer and a classifier on frozen features; seconds to a minute",
        reference="Chollet 2016, Building powerful image classification models using very little data (bottleneck features)",
        traits=frozenset({"target-labels"}),
    )
    searched: ClassVar[tuple[str, ...]] = ("units", "dropout", "lr", "weight_decay")

    units: int = Field(256, ge=8, le=8192, description="width of the hidden layer")
    dropout: float = Field(0.5, ge=0, le=0.9, description="share of the units that is dropped while training")
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training images at most")
    patience: int = Field(
        10, ge=1, le=1000, description="epochs in a row without a better one that end training"
    )
    lr: float = Field(1e-3, ge=1e-6, le=0.1, description="learning rate (AdamW)")
    weight_decay: float = Field(1e-4, ge=0, le=0.3, description="decoupled; not on biases")
    batch_size: int = Field(16, ge=2, le=4096, description="images")

    def plan(self, task: TrainTask) -> TrainPlan:
        groups = tuple(Group(part, self.lr, self.weight_decay) for part in ("bottleneck", "head"))
        phase = Phase(
            name="mlp-head",
            objective=OfPresentClasses(),
            moves=(Move(groups),),
            epochs=self.epochs,
            batch_size=self.batch_size,
            schedule="constant",
            warmup=0.0,
            augment="none",
            inputs="features",
            patience=self.patience,
        )
        return TrainPlan((phase,), bottleneck=Bottleneck(width=self.units, dropout=self.dropout, norm=False))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [MlpHead]
