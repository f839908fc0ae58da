"""Co-Tuning: the classes of pretraining, related to the new ones, as a second label of every image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.objectives import Supervised, labelled
from tlcore.training.plan import Batch, Group, HeadFit, HeadProblem, Losses, Phase, Setup

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from tlcore.training.network import Network

Relationship = Literal["reverse", "direct"]


def direct_relationship(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """p(y_s | y_t) as the mean source probabilities of the images of class y_t (You et al. 2020, section 4.1).

    probabilities: [n, Z] of the source head; labels: int64 [n] in 0 … K-1. Float64 [K, Z], rows sum to 1; a class
    without images has the mean of all images.
    """
    import numpy as np

    p = np.asarray(probabilities, dtype=np.float64)
    related = np.tile(p.mean(0), (classes, 1))
    for present in np.unique(labels):
        related[present] = p[labels == present].mean(0)
    return np.asarray(related / related.sum(1, keepdims=True))


def reverse_relationship(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    classes: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """p(y_s | y_t) by Bayes' rule from p(y_t | y_s), learned the other way round (You et al. 2020, section 4.1).

    p(y_t | y_s = z) is what a logistic regression from source probabilities to labels, its penalty by
    cross-validation, says of the unit vector e_z; p(y_s) is the mean of the probabilities. Arguments and result as of
    `direct_relationship`; groups as of `HeadProblem`.

    Raises:
        UserError: fewer than two classes among the labels.
    """
    import numpy as np
    from scipy.special import softmax

    from tlcore.training.heads import logistic_head

    p = np.asarray(probabilities, dtype=np.float64)
    names = tuple(map(str, range(classes)))
    problem = HeadProblem(p.astype(np.float32), labels, names, seed, groups=groups)
    # One scale for all source classes: of its own, a class that no image shows would weigh as much as any other.
    weight, bias, _ = logistic_head(problem, penalties=7, folds=5, common_scale=True)
    joint = softmax(weight.T + bias, axis=1).T * p.mean(0)
    absent = np.setdiff1d(np.arange(classes), labels)
    joint[absent] = p.mean(0)
    return np.asarray(joint / joint.sum(1, keepdims=True))


def cotuning_loss(source_logits: Tensor, related: Tensor) -> Tensor:
    """-sum_z p(z | y_t) log softmax(source logits)_z, mean over images (You et al. 2020, equation 3).

    source_logits: float [n, Z]; related: float [n, Z], rows sum to 1. A scalar, in nats.
    """
    import torch

    return -(related * torch.log_softmax(source_logits.float(), dim=1)).sum(1).mean()


class CoTuningObjective(Supervised):
    """The cross-entropy of the labels + weight times the source head's with the related source classes."""

    def __init__(self, smoothing: float, balanced: bool, weight: float, relationship: Relationship) -> None:
        super().__init__(smoothing, balanced=balanced)
        self.weight, self.relationship = weight, relationship

    def setup(self, setup: Setup) -> nn.Module:
        from copy import deepcopy

        import numpy as np
        import torch
        from scipy.special import softmax
        from torch import nn

        super().setup(setup)
        if setup.source_head is None or setup.labels is None:
            raise PluginError(
                "Co-Tuning needs the layer that pretraining classified with, and labelled images",
                hint="choose a model whose weights carry a head, or lp-ft",
            )
        features, _ = setup.predict("source")
        if setup.source_head.in_features != features.shape[1]:
            raise PluginError(
                f"the source head takes {setup.source_head.in_features} features and the network gives {features.shape[1]}"
            )
        self.own = nn.Module()
        self.own.head = deepcopy(setup.source_head).requires_grad_(True)
        with torch.no_grad():
            logits = deepcopy(setup.source_head).cpu()(torch.from_numpy(features)).double().numpy()
        p, labels, count = softmax(logits, axis=1), np.asarray(setup.labels), len(setup.task.classes)
        related = (
            direct_relationship(p, labels, count)
            if self.relationship == "direct"
            else reverse_relationship(p, labels, count, setup.task.seed, setup.groups)
        )
        self.own.register_buffer("related", torch.from_numpy(related).float())
        return self.own

    def loss(self, network: Network, batch: Batch) -> Losses:
        view = labelled(batch)
        features = network.features(view.inputs)
        fit = self.supervised(network.logits(features), batch)
        known = self.own.get_buffer("related")
        related = known[view.labels]
        if view.share is not None and view.others is not None:
            related = view.share * related + (1 - view.share) * known[view.others]
        paired = cotuning_loss(self.own.get_submodule("head")(features), related)
        return {"total": fit + self.weight * paired, "fit": fit.detach(), "source": paired.detach()}


class CoTuning(NetworkTuner):
    """Fine-tune everything, and keep the head of pretraining in training beside the new one.

    An image of a new class is taught to look like the source classes that its class has been related to, so that what
    the source head knows is used and not forgotten. The source head is dropped afterwards.
    """

    card: ClassVar[Card] = Card(
        name="co-tuning",
        summary="Fine-tune everything, with source classes related to the new ones as second labels (Co-Tuning)",
        reference="You, Kou, Long & Wang 2020 (Co-Tuning for transfer learning), section 4",
        traits=frozenset({"target-labels", "source-head"}),
    )

    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "weight")

    weight: float = Field(
        0.3,
        ge=0,
        le=100,
        description="of the source head's loss, lambda of the paper (2.3 there, with SGD from a fresh head)",
    )
    relationship: Relationship = Field(
        "reverse",
        description="reverse: by a regression from source to new classes and Bayes' rule; direct: mean probabilities",
    )
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> CoTuningObjective:
        return CoTuningObjective(
            self.smoothing, self.class_weights == "balanced", self.weight, self.relationship
        )

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        own = Group("objective", self.lr, self.weight_decay)  # it is fitted, as the backbone is
        groups = (*self.groups("backbone"), own)
        return probe(task), self.phase(self.card.name, self.objective(task), groups)


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [CoTuning]
