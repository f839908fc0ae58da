"""What tuners of the network have in common: what moves, how long, how fast, and what goes on around it.

Import costs nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.protocols import TrainTask, Tuner
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Group, HeadFit, Move, Objective, Phase, TrainPlan

if TYPE_CHECKING:
    from typing import Any

__all__ = ["WISE", "NetworkTuner", "probe"]

WISE = (0.2, 0.4, 0.6, 0.8)
"""Shares of the fine-tuned weights that weight-space ensembling looks at between the two ends."""


class NetworkTuner(Tuner):
    """A tuner that takes gradient steps on images. A subclass gives `objective` or `phases`; the options are the same
    everywhere.

    Defaults: AdamW, a cosine to zero after a tenth of warm-up, small moves and lighting as augmentation.

    Attributes:
        probed: whether the head starts from a probe on the untouched features (Kumar et al. 2022), which keeps the
            gradients of an unfitted head away from the backbone; else it starts at zero.
        searched: options that a search varies unless it is told which.
    """

    probed: ClassVar[bool] = False
    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "weight_decay", "smoothing")

    epochs: int = Field(10, ge=1, le=1000, description="passes over the training images")
    lr: float = Field(1e-4, ge=1e-6, le=0.01, description="peak learning rate of the backbone (AdamW)")
    head_factor: float = Field(1.0, ge=0.1, le=100, description="the head's rate over the backbone's")
    layer_decay: float = Field(
        1.0,
        ge=0.3,
        le=1,
        description="rate of a layer over that of the layer above it; 1: the same everywhere",
    )
    weight_decay: float = Field(0.01, ge=0, le=0.3, description="decoupled; not on biases and norm layers")
    batch_size: int = Field(16, ge=2, le=4096, description="images")
    smoothing: float = Field(0.0, ge=0, le=0.3, description="label smoothing")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a class counts by one over its number of images"
    )
    augment: Literal["none", "light", "flip", "strong"] = Field(
        "light",
        description="light: small moves and lighting; flip: mirrors as well; strong: large moves and a blank square",
    )
    randaugment: str | None = Field(
        None,
        pattern=r"^(rand|augmix|original|v0|3a)",
        description='timm\'s policy, such as "rand-m9-mstd0.5"; before the rest',
    )
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of mixup; 0: none")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of CutMix; 0: none")
    ema: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="decay per step of the mean of the weights that is kept instead of them",
    )
    sam: float | None = Field(
        None, gt=0, le=1, description="radius of sharpness-aware steps, which cost twice; none: plain steps"
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="epochs in a row without a better one that end training; none: all epochs",
    )
    wise: bool = Field(
        False,
        description="look between the start and the end in weight space too, and keep the best (WiSE-FT)",
    )
    frozen_statistics: bool = Field(False, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> Objective:
        """The loss of all phases; called once per plan."""
        return Supervised(self.smoothing, balanced=self.class_weights == "balanced")

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        """One phase over the whole network, after the probe where the strategy starts from one."""
        tune = self.phase(self.card.name, self.objective(task), self.groups("backbone"))
        return (probe(task), tune) if self.probed else (tune,)

    def plan(self, task: TrainTask) -> TrainPlan:
        return TrainPlan(self.phases(task))

    def groups(self, *backbone: str) -> tuple[Group, ...]:
        """The head, and the parts of the backbone that are named as in `Group.parameters`."""
        moved = tuple(Group(part, self.lr, self.weight_decay, self.layer_decay) for part in backbone)
        return (Group("head", self.lr * self.head_factor, self.weight_decay), *moved)

    def phase(self, name: str, objective: Objective, groups: tuple[Group, ...], **changes: Any) -> Phase:
        """A phase with all the options; `changes` are fields of `Phase` that differ."""
        fields: dict[str, Any] = {
            "epochs": self.epochs, "batch_size": self.batch_size, "augment": self.augment, "mixup": self.mixup,
            "cutmix": self.cutmix, "randaugment": self.randaugment, "ema": self.ema, "sam": self.sam,
            "patience": self.patience, "interpolate": WISE if self.wise else (),
            "frozen_statistics": self.frozen_statistics,
        }  # fmt: skip
        return Phase(name=name, objective=objective, moves=(Move(groups),), **{**fields, **changes})


def probe(task: TrainTask, *, penalties: int = 7, folds: int = 5) -> HeadFit:
    """The head by logistic regression on frozen features, or by ridge regression where labels are numbers or tags."""
    from tlcore.training.heads import logistic_head, ridge_head

    if task.task == "classification":
        return HeadFit("probe", partial(logistic_head, penalties=penalties, folds=folds, common_scale=True))
    return HeadFit("probe", partial(ridge_head, penalties=40))
