"""SHOT: a frozen source classifier; the features below it move until the target's images fall to its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Batch, Losses, Objective, Phase, Setup
from tlcore.training.trained_adapter import Mode, TrainedAdapter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from tlcore.training.network import Network

UNKNOWN = -1
"""The pseudo-label of an image that seems to belong to no class of the source."""


def centroid_labels(
    features: NDArray[np.floating], probabilities: NDArray[np.floating], least: int = 1
) -> NDArray[np.int64]:
    """Class of the nearest centroid by cosine distance, in two rounds (Liang et al. 2020, eq. 4 to 6): int64 [m].

    features: [m, d]; probabilities: [m, K]. Features get a constant 1 and unit length, as in the authors' code. The
    first centroids are means weighted by the probabilities, the second are those of the first round's classes. A class
    takes part in a round if at least `least` images fell to it in the one before (at first: are predicted as it),
    which is the authors' correction of 2022; where no class has so many, the most frequent ones do.
    """
    import numpy as np

    count, classes = probabilities.shape
    x = np.concatenate([np.asarray(features, dtype=np.float64), np.ones((count, 1))], axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    weights = np.asarray(probabilities, dtype=np.float64)
    labels: NDArray[np.int64] = weights.argmax(axis=1)
    for _ in range(2):
        images = np.bincount(labels, minlength=classes)
        present = np.flatnonzero(images >= min(max(1, least), images.max()))
        centroids = weights[:, present].T @ x
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        labels = present[(x @ centroids.T).argmax(axis=1)]
        weights = np.eye(classes)[labels]
    return labels


def uncertain(probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether an image belongs to the upper of two clusters of the entropy, least squares: bool [m].

    probabilities: [m, K]. In one dimension 2-means has an exact answer, by trying each cut of the sorted values.
    Nobody is uncertain where all entropies are equal to within rounding.
    """
    import numpy as np

    p = np.asarray(probabilities, dtype=np.float64)
    entropy: NDArray[np.float64] = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    order = np.sort(entropy)
    if not len(order) or order[-1] - order[0] < 1e-6:
        return np.zeros(len(p), dtype=bool)
    below = np.arange(1, len(order))
    sums = order.cumsum()
    # Least squares within the clusters is most squares between them.
    between = sums[:-1] ** 2 / below + (sums[-1] - sums[:-1]) ** 2 / (len(order) - below)
    cut = float(order[between.argmax()])
    return np.greater(entropy, cut)


def information_loss(logits: Tensor, diversity: bool) -> Tensor:
    """Mean entropy of the predictions, less the entropy of their mean where `diversity` (eq. 3): a scalar, in nats.

    logits: [n, K], n > 0. Low where each image has one class and, with diversity, all classes are used.
    """
    p = logits.softmax(1)
    certainty = -(p * logits.log_softmax(1)).sum(1).mean()
    if not diversity:
        return certainty
    mean = p.mean(0)
    # 1e-5 as in the authors' code: the slope of log at 0 is infinite.
    return certainty + (mean * (mean + 1e-5).log()).sum()


class ShotObjective(Objective):
    """Information maximisation plus the cross-entropy with centroid labels, on target images alone.

    Labels are made anew at each epoch. With `open_set`, images of high entropy (see `uncertain`) are given no
    label and left out of centroids and losses, as in the paper's open-set variant.
    """

    def __init__(self, pseudo: float, entropy: float, diversity: bool, least: int, open_set: bool) -> None:
        self.pseudo, self.entropy, self.diversity = pseudo, entropy, diversity
        self.least, self.open_set = least, open_set

    def setup(self, setup: Setup) -> nn.Module:
        import torch
        from torch import nn

        self.bank = nn.Module()
        labels = torch.full((setup.task.target_train or len(setup.predict("target")[0]),), UNKNOWN)
        self.bank.register_buffer("labels", labels)
        return self.bank

    def epoch_started(self, setup: Setup) -> None:
        import numpy as np
        import torch

        features, probabilities = setup.predict("target")
        if not (np.isfinite(features).all() and np.isfinite(probabilities).all()):
            raise PluginError(
                "the network's features of the target are not finite", hint="use a smaller learning rate"
            )
        labels = np.full(len(features), UNKNOWN, dtype=np.int64)
        known = ~uncertain(probabilities) if self.open_set else np.ones(len(features), dtype=bool)
        labels[known] = centroid_labels(features[known], probabilities[known], self.least)
        bank: Tensor = self.bank.get_buffer("labels")
        bank.copy_(torch.from_numpy(labels))

    def loss(self, network: Network, batch: Batch) -> Losses:
        from torch.nn import functional

        if batch.target is None or len(batch.target.inputs) < 2:
            raise PluginError("SHOT needs a target stream, and at least two images of it in a batch")
        logits = network(batch.target.inputs)
        labels = self.bank.get_buffer("labels")[batch.target.index]
        known = labels != UNKNOWN
        share = known.float().mean()
        if not known.any():
            return {"total": logits.sum() * 0, "known": share}
        information = information_loss(logits[known], self.diversity)
        pseudo = functional.cross_entropy(logits[known], labels[known])
        return {
            "total": self.entropy * information + self.pseudo * pseudo,
            "information": information.detach(),
            "pseudo": pseudo.detach(),
            "known": share,
        }


class Shot(TrainedAdapter):
    """Adapt the features to a frozen classifier; the adaptation itself never sees a source image.

    With a fresh bottleneck (always on cached features) there are two phases: "source" trains bottleneck and head, and
    what else moves, on labelled source images with label smoothing; "shot" freezes the head and moves the rest on the
    target. Source images are therefore among what it needs. Without a bottleneck the source-only network is taken
    as it is, and "shot" moves its backbone: this is SHOT proper, source-free. The paper's classifier has normalised
    weights and its bottleneck ends in batch norm; here they are the plain head and the bottleneck of all adapters.

    Nothing holds the network to the source once its features move: what it leaves is for the target alone.
    """

    card: ClassVar[Card] = Card(
        name="shot",
        summary="Frozen classifier; target features by information maximisation and centroid pseudo-labels",
        reference="Liang, Hu & Feng 2020, eq. 1 to 7; labels as in the authors' code of 2022",
        traits=frozenset({"source-data", "target-data", "partial", "open", "target-only"}),
    )

    views: ClassVar[int] = 1

    pseudo: float = Field(
        0.3, ge=0, le=1e3, description="weight of the cross-entropy with the centroid labels"
    )
    entropy: float = Field(1.0, ge=0, le=1e3, description="weight of the information maximisation")
    diversity: bool = Field(
        True, description="ask for all classes to be used; never where the target may lack classes"
    )
    class_images: int | None = Field(
        None,
        ge=1,
        description="predicted images from which a class has a centroid; none: 1, but where the target may lack "
        "classes 11 as in the authors' code, and at most half of an even share",
    )
    smoothing: float = Field(0.1, ge=0, lt=1, description="of the labels in the source phase")
    steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="gradient steps of each phase; none: ten passes over the larger domain, but 500 to 5,000",
    )
    checkpoints: int = Field(
        15,
        ge=1,
        le=1000,
        description="looks at the network along the way, each with new pseudo-labels and each a possible end",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the bottleneck's units that is dropped; the paper drops none"
    )
    batch_size: int = Field(64, ge=2, le=4096, description="images of a batch; the paper's")

    def objective(self, task: TrainTask) -> ShotObjective:
        lacking = task.label_sets in ("partial", "open-partial")
        half_share = max(1, task.target_train // (2 * len(task.classes)))
        return ShotObjective(
            self.pseudo,
            self.entropy,
            self.diversity and not lacking,
            self.class_images or (min(11, half_share) if lacking else 1),
            task.label_sets in ("open", "open-partial"),
        )

    def phases(self, task: TrainTask, mode: Mode) -> tuple[Phase, ...]:
        moved = tuple(group for group in self.groups(task, mode) if group.parameters != "head")
        shot = self.phase(task, mode, "shot", self.objective(task), streams=("target",), groups=moved)
        if self.fresh_bottleneck(mode) is None:
            return (shot,)
        first = Supervised(self.smoothing)
        return (self.phase(task, mode, "source", first, streams=("source",), choose="end"), shot)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Shot]
