"""Training plans: what a tuner or adapter returns and the host carries out (DECISIONS, 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tlcore.errors import PluginError
from tlcore.values import Bottleneck, Head, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from tlcore.protocols import TrainTask
    from tlcore.training.network import Network

__all__ = [
    "Augment", "Batch", "Bottleneck", "Group", "Head", "HeadFit", "HeadProblem", "Losses", "Move", "Objective", "Phase",
    "Setup", "Solved", "Stream", "TrainPlan", "Transform", "View",
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
    layer_decay: r in (0, 1]: the rate is lr r^(distance to the head), counted in the backbone's layers as timm parts
        them (Clark et al. 2020, section 3.1; Bao et al. 2022, appendix); 1: the same rate everywhere.
    """

    parameters: str
    lr: float
    weight_decay: float = 0.0
    layer_decay: float = 1.0


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
    and the objective can move. `inputs="activations"`: the batches hold what enters the first stage that moves,
    computed once of `views` augmented variants of each image (the first of them is the image itself).

    mixup, cutmix: alpha of the Beta distribution of the mixing share (Zhang et al. 2018; Yun et al. 2019), 0 for
    none; with both each batch draws one of them. randaugment: timm's policy in its own notation ("rand-m9-mstd0.5").
    ema: decay of a running mean of the weights, which is what is measured and kept (Polyak & Juditsky 1992).
    sam: radius of sharpness-aware steps (Foret et al. 2021, algorithm 1). patience: so many looks in a row without a
    better one end the phase. interpolate: shares a in (0, 1) for which (1 - a) start + a end of this phase is looked
    at when it is over, and kept where it is better (Wortsman et al. 2022, WiSE-FT, section 2).
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
    inputs: Literal["images", "features", "activations"] = "images"
    views: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: str | None = None
    ema: float | None = None
    sam: float | None = None
    patience: int | None = None
    interpolate: tuple[float, ...] = ()
    choose: Literal["best", "last", "end"] = "best"
    frozen_statistics: bool = False
    clip_norm: float | None = 5.0


@dataclass(frozen=True)
class HeadProblem:
    """features float32 [n, d], labels int64 [n] in 0 … K-1, K = len(classes), of the source's training images;
    target: float32 [m, d] of the target's, where there is a target. d is the head's width.

    task: "classification", or what labels are else: "regression", float64 [n] with K = 1; "multi-label", float64
    [n, K] of 0 and 1. text: embeddings float32 [p, d] of p texts in the same space as the features, unit length,
    where the model has such a tower. groups: int64 [n]; images of one number are copies of each other, and are held
    out together by whatever a fit chooses on held-out images. None: all differ.
    """

    features: NDArray[np.float32]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    seed: int
    target: NDArray[np.float32] | None = None
    task: Task = "classification"
    text: Callable[[Sequence[str]], NDArray[np.float32]] | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Solved:
    """A solved head: its kind and its tensors by name, float [..], and numbers to show.

    "linear": weight [K, d], bias [K]. "unit": the same and centre [d]. "neighbours": bank [m, d] of unit length,
    votes [m, K] that sum to 1 each, centre [d].
    """

    tensors: Mapping[str, NDArray[np.floating[Any]]]
    head: Head = Head()
    notes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadFit:
    """Solve the head from the frozen network's features. `fit` returns a `Solved`, or of a linear head weight
    [K, d], bias [K] and notes."""

    name: str
    fit: Callable[
        [HeadProblem], Solved | tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]
    ]


class Transform:
    """A change of the network that lasts from before the first phase to the end of the plan: low-rank adapters.

    Override both. `apply` is called on the loaded network, before a resume file is read; `merge` on the finished
    one, which then has the parameters, by name and shape, that it had before.
    """

    def apply(self, network: Network) -> None:
        """Change the network in place, by torch's global random state."""
        raise PluginError(f"{type(self).__name__} defines no change")

    def interpolates(self, name: str) -> bool:
        """Whether a tensor moves in a straight line from the phase's start to its end where weights are interpolated;
        else it is as at the end. For factors of a product, of which one starts at zero: that one alone."""
        return True

    def merge(self, network: Network) -> None:
        """Put what was learned into the network's own parameters."""
        raise PluginError(f"{type(self).__name__} defines no way back")


@dataclass(frozen=True)
class TrainPlan:
    """Phases in order; each starts from the weights that the one before has chosen.

    bottleneck: put a fresh bottleneck and a fresh head on the backbone before the first phase.
    transform: in force during all phases.
    """

    phases: tuple[Phase | HeadFit, ...]
    bottleneck: Bottleneck | None = None
    transform: Transform | None = None

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
    labels: int64 [n] (float32 [n] of numbers, [n, K] of tags); None on the target, always.
    index: int64 [n], positions in the stream. domains: int64 [n], 0 … G-1, on a source of several domains; else None.
    share: of each image in its own place, where the batch was mixed with itself in reverse order (mixup, cutmix), and
    `others`, `others_index` the labels and positions of what was mixed in; else None.
    """

    inputs: Tensor
    labels: Tensor | None
    index: Tensor
    strong: Tensor | None = None
    domains: Tensor | None = None
    share: float | None = None
    others: Tensor | None = None
    others_index: Tensor | None = None


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
    source_head: the linear layer that pretraining put on the backbone's features, for strategies with the trait
    "source-head". teacher: logits float32 [n, K] of the source's training images by a better network, in stream
    order, for strategies with the trait "teacher". labels, groups: of the source's training images, in stream order, as in
    `HeadProblem`.
    """

    network: Network
    task: TrainTask
    predict: Callable[[Stream], tuple[NDArray[np.float32], NDArray[np.float32]]]
    epoch: int = 0
    source_head: nn.Linear | None = None
    teacher: NDArray[np.float32] | None = None
    labels: NDArray[Any] | None = None
    groups: NDArray[np.int64] | None = None


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
