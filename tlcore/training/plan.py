"""Training plans: what a tuner or adapter returns and the host carries out (DECISIONS, 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tlcore.errors import PluginError
from tlcore.values import Bottleneck

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from tlcore.protocols import TrainTask
    from tlcore.training.network import Network

__all__ = [
    "Augment", "Batch", "Bottleneck", "Group", "HeadFit", "HeadProblem", "Losses", "Move", "Objective", "Phase", "Setup",
    "Stream", "TrainPlan", "View",
]  # fmt: skip

Stream = Literal["source", "target"]
Augment = Literal["none", "light", "flip", "strong"]
Losses = Mapping[str, "Tensor"]
"""Named scalars; "total" is the one that is minimised, the others are shown in the curves."""


@dataclass(frozen=True)
class Group:
    """Parameters that one optimiser step may change.

    parameters: "backbone", "bottleneck", "head", "norm" (weights and biases of normalisation layers), "all",
        "last:N" (the backbone's last N stages, as timm parts it), "objective" (modules that the objective made),
        or a glob over parameter names ("backbone.blocks.6.*").
    lr: peak learning rate. weight_decay: not applied to biases and normalisation layers.
    """

    parameters: str
    lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Move:
    """One optimiser step per batch: the objective's method `loss` and the groups it changes.

    Without groups nothing is changed but running statistics: the batch only passes through.
    """

    groups: tuple[Group, ...]
    loss: str = "loss"


@dataclass(frozen=True)
class Phase:
    """A stretch of gradient steps.

    An epoch is one pass over the source stream, or over the target where there is no source, or
    `steps_per_epoch` steps; a stream is drawn anew as often as it runs out. After each epoch the host measures
    (validation accuracy, or label-free validators for adapters): `choose="best"` keeps the epoch that it likes
    best, among all epochs and the starting point; "last" keeps the end and "end" does so without measuring, for
    phases that only prepare the next one. Parameters outside all groups are frozen; `frozen_statistics`
    keeps batch-norm layers in eval mode, the right thing for a few images on a pretrained network, and stages
    without a parameter that moves are in eval mode in any case unless no parameter moves at all.
    `inputs="features"`: the batches hold the backbone's features, computed once; only the bottleneck, the head
    and the objective can move.
    """

    name: str
    objective: Objective
    moves: tuple[Move, ...]
    epochs: int
    steps_per_epoch: int | None = None
    streams: tuple[Stream, ...] = ("source",)
    batch_size: int = 32
    optimizer: Literal["sgd", "adamw"] = "adamw"
    momentum: float = 0.9
    schedule: Literal["constant", "cosine", "inverse"] = "cosine"
    warmup: float = 0.1
    augment: Augment = "light"
    strong_view: bool = False
    inputs: Literal["images", "features"] = "images"
    choose: Literal["best", "last", "end"] = "best"
    frozen_statistics: bool = False
    clip_norm: float | None = 5.0


@dataclass(frozen=True)
class HeadProblem:
    """features float32 [n, d], labels int64 [n] in 0 … K-1, K = len(classes), of the source's training images;
    target: float32 [m, d] of the target's, where there is a target. d is the head's width."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    seed: int
    target: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class HeadFit:
    """Solve the head from the frozen network's features. `fit` returns weight [K, d], bias [K] and notes."""

    name: str
    fit: Callable[[HeadProblem], tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]]


@dataclass(frozen=True)
class TrainPlan:
    """Phases in order; each starts from the weights that the one before has chosen.

    bottleneck: put a fresh bottleneck and a fresh head on the backbone before the first phase.
    """

    phases: tuple[Phase | HeadFit, ...]
    bottleneck: Bottleneck | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise PluginError("a training plan has no phase")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise PluginError(f"two phases of a training plan share a name: {', '.join(names)}")

    @property
    def keeps_backbone(self) -> bool:
        """Whether no phase changes the backbone: its features can be computed once and for all."""
        return self.backbone_kept_until(len(self.phases))

    def backbone_kept_until(self, phase: int) -> bool:
        """Whether no phase before this one changes the backbone."""
        return all(isinstance(part, HeadFit) or part.inputs == "features" for part in self.phases[:phase])


@dataclass(frozen=True)
class View:
    """One stream's part of a batch.

    inputs: weakly augmented, normalised float32 [n, 3, H, W] (features [n, d] in such a phase);
    strong: the same images strongly augmented, where the phase asked for it;
    labels: int64 [n]; None on the target, always. index: int64 [n], positions in the stream.
    domains: int64 [n], 0 … G-1, on a source of several domains; else None.
    """

    inputs: Tensor
    labels: Tensor | None
    index: Tensor
    strong: Tensor | None = None
    domains: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """progress: share of the phase's steps that are done, in [0, 1). step: from 0 in this phase."""

    source: View | None
    target: View | None
    progress: float
    step: int


@dataclass(frozen=True)
class Setup:
    """What an objective may look at before its phase and before each epoch.

    predict(stream) -> (features float32 [n, d], probabilities float32 [n, K]) of all training images of the
    stream, in stream order, without augmentation, by the network as it is now.
    """

    network: Network
    task: TrainTask
    predict: Callable[[Stream], tuple[NDArray[np.float32], NDArray[np.float32]]]
    epoch: int = 0


class Objective:
    """Base of objectives. Override `loss`; the rest where the method needs it.

    State that must survive a kill goes into the module that `setup` returns (buffers count).
    """

    def setup(self, setup: Setup) -> nn.Module | None:
        """Make own modules (a discriminator, a second head, a teacher), in the phase's seed. Once per phase."""
        return None

    def epoch_started(self, setup: Setup) -> None:
        """Refresh pseudo-labels, banks, teachers."""

    def loss(self, network: Network, batch: Batch) -> Losses:
        """Named scalars, "total" among them."""
        raise PluginError(f"{type(self).__name__} defines no loss")
