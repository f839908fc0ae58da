"""What adapters that train have in common: what moves, how long, how fast. Import costs nothing."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import Field

from tlcore.errors import UserError
from tlcore.protocols import Adapter, TrainTask
from tlcore.training.plan import Bottleneck, Group, Move, Objective, Phase, Stream, TrainPlan

__all__ = ["AFFORDABLE_GMACS", "Mode", "TrainedAdapter"]

Mode = Literal["all", "last", "head"]

AFFORDABLE_GMACS = 10_000.0
"""Work (forward and backward, all steps) up to which "auto" trains the whole network: some minutes on two cores."""
_WORK: dict[Mode, float] = {"all": 3.0, "last": 1.2, "head": 0.0}
"""Of a step, in forward passes: a backward pass costs two, and none is needed below the last stages."""


class TrainedAdapter(Adapter):
    """An adapter with one objective. A subclass gives `objective`, and `phases` where it needs more than one phase.

    Defaults follow the public reference recipe of DANN, CDAN, MCC and MDD (Jiang et al., Transfer-Learning-Library):
    SGD with Nesterov momentum 0.9, rate 0.01 annealed as (1 + 10 p)^-0.75 (Ganin et al. 2016, section 5.2.2), a
    tenth of it on the backbone of a large network, weight decay 1e-3, batches of 32 images of each domain, a bottleneck
    of 256 units.
    """

    modes: ClassVar[tuple[Mode, ...]] = ("all", "last", "head")
    """What the method can train. "auto" means "all" where that is affordable, else the last of these."""
    views: ClassVar[int] = 2
    """Batches of images that one step takes through the network, which its cost is counted by."""
    own_modules: ClassVar[bool] = False
    """Whether the objective has modules of its own, trained at the head's rate."""

    train: Literal["auto", "all", "last", "head"] = Field(
        "auto",
        description="all: the whole network; last: its last stages and the head; head: a bottleneck and a head on cached "
        "features; auto: all where that takes minutes, else the least that the method can do",
    )
    stages: int = Field(1, ge=1, le=64, description="stages of the backbone that train = last means")
    bottleneck: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="units of a fresh layer before a fresh head; none: 256 on cached features, else no such layer",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of the bottleneck's units that is dropped while training"
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="gradient steps, filled up so that looks lie equally far apart; none: ten passes over the larger "
        "domain, but 500 to 5,000, and on images of a "
        "costly network as many as take minutes, but 100 at least",
    )
    checkpoints: int = Field(
        10, ge=1, le=1000, description="looks at the network along the way, each a possible end"
    )
    lr: float = Field(0.01, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD)")
    backbone_lr: float | None = Field(
        None,
        gt=0,
        le=10,
        description="learning rate of the backbone, as a multiple of lr; none: 1 where the whole network trains in minutes, "
        "else 0.1",
    )
    weight_decay: float = Field(1e-3, ge=0, le=1, description="not applied to biases and norm layers")
    batch_size: int = Field(32, ge=2, le=4096, description="images of each domain")
    augment: Literal["none", "light", "flip", "strong"] = Field(
        "light", description="as in the tuners; not on cached features"
    )

    @abstractmethod
    def objective(self, task: TrainTask) -> Objective:
        """The loss; called once per plan."""

    def plan(self, task: TrainTask) -> TrainPlan:
        mode = self.mode(task)
        return TrainPlan(self.phases(task, mode), bottleneck=self.fresh_bottleneck(mode))

    def phases(self, task: TrainTask, mode: Mode) -> tuple[Phase, ...]:
        """One phase of the objective over both streams."""
        return (self.phase(task, mode, self.card.name, self.objective(task)),)

    def mode(self, task: TrainTask) -> Mode:
        """What is trained.

        Raises:
            UserError: the method cannot do what `train` asks for.
        """
        if self.train != "auto":
            if self.train not in self.modes:
                raise UserError(f'{self.card.name} cannot train = "{self.train}"', choices=self.modes)
            return self.train
        return "all" if "all" in self.modes and self._affordable(task) else self.modes[-1]

    def _affordable(self, task: TrainTask) -> bool:
        """Whether the whole network could be trained in minutes."""
        return self._wanted_steps(task) * self.step_gmacs(task, "all") <= AFFORDABLE_GMACS

    def step_gmacs(self, task: TrainTask, mode: Mode) -> float:
        """Billions of multiply-accumulates of one step; infinite where nobody knows the network's."""
        images = self.views * self.batch_size
        return math.inf if task.gmacs is None else _WORK[mode] * task.gmacs * images

    def total_steps(self, task: TrainTask, mode: Mode) -> int:
        """`steps`, or ten passes over the larger domain, but 500 to 5,000; on images of a costly network fewer, as many
        as are affordable, and 100 at least."""
        wanted, each = self._wanted_steps(task), self.step_gmacs(task, mode) if mode != "head" else 0.0
        if self.steps is not None or wanted * each <= AFFORDABLE_GMACS:
            return wanted
        return max(100, int(AFFORDABLE_GMACS / each))

    def _wanted_steps(self, task: TrainTask) -> int:
        if self.steps is not None:
            return self.steps
        images = max(task.source_train, task.target_train)
        return min(5000, max(500, 10 * math.ceil(images / self.batch_size)))

    def fresh_bottleneck(self, mode: Mode) -> Bottleneck | None:
        if mode != "head" and self.bottleneck is None:
            return None
        return Bottleneck(width=self.bottleneck or 256, dropout=self.dropout)

    def groups(self, task: TrainTask, mode: Mode) -> tuple[Group, ...]:
        """Backbone at its share of the rate, bottleneck and head at the rate.

        A tenth on the backbone is the reference recipe for large networks pretrained on ImageNet. Small ones that
        learnt the source alone have to move further: at a tenth MCC gains a quarter as much on digits.
        """
        share = self.backbone_lr or (1.0 if mode == "all" and self._affordable(task) else 0.1)
        named = {"all": ["backbone"], "last": [f"last:{self.stages}"], "head": []}[mode]
        moved = [Group(name, self.lr * share, self.weight_decay) for name in named]
        if self.fresh_bottleneck(mode) is not None:
            moved.append(Group("bottleneck", self.lr, self.weight_decay))
        return (*moved, Group("head", self.lr, self.weight_decay))

    def phase(
        self,
        task: TrainTask,
        mode: Mode,
        name: str,
        objective: Objective,
        *,
        streams: tuple[Stream, ...] = ("source", "target"),
        groups: tuple[Group, ...] | None = None,
        steps: int | None = None,
        choose: Literal["best", "last", "end"] = "best",
        strong_view: bool = False,
    ) -> Phase:
        """A phase by the options. groups: those of the mode where None; steps: `total_steps` where None."""
        moved = self.groups(task, mode) if groups is None else groups
        if self.own_modules and groups is None:
            moved = (*moved, Group("objective", self.lr, self.weight_decay))
        total = steps or self.total_steps(task, mode)
        # Looks at equal distances: as many steps as fill them, and no look more than that takes.
        each = math.ceil(total / self.checkpoints) if choose != "end" else total
        return Phase(
            name=name,
            objective=objective,
            moves=(Move(moved),),
            epochs=math.ceil(total / each),
            steps_per_epoch=each,
            streams=streams,
            batch_size=self.batch_size,
            optimizer="sgd",
            schedule="inverse",
            warmup=0.0,
            augment=self.augment,
            strong_view=strong_view,
            inputs="features" if mode == "head" else "images",
            choose=choose,
        )
