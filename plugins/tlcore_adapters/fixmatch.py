"""FixMatch: confident predictions on weakly changed target images teach their strongly changed copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import Batch, Losses, Objective, Phase
from tlcore.training.trained_adapter import Mode, TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network


def consistency(weak: Tensor, strong: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the strong view with the class of the weak one, and the share of images that had one.

    (1/m) sum_i 1(max q_i >= threshold) H(argmax q_i, p_i), q the weak view's probabilities, p the strong view's
    (Sohn et al. 2020, eq. 4). weak, strong: logits [m, K]. No gradient goes through `weak`. Images that are not
    confident count in m: a batch without a confident image has the loss 0.
    """
    from torch.nn import functional

    confidence, labels = weak.detach().softmax(1).max(1)
    sure = (confidence >= threshold).to(strong.dtype)
    losses = functional.cross_entropy(strong, labels, reduction="none")
    return (losses * sure).mean(), sure.mean()


class FixMatchObjective(Objective):
    """Cross-entropy on the source plus weight times the consistency of the target's two views.

    Source, weak and strong views pass in one batch, as in the authors' code, so that batch norm sees one mixture.
    """

    def __init__(self, weight: float, threshold: float) -> None:
        self.weight, self.threshold = weight, threshold

    def loss(self, network: Network, batch: Batch) -> Losses:
        import torch
        from torch.nn import functional

        source, target = batch.source, batch.target
        if source is None or source.labels is None or target is None or target.strong is None:
            raise PluginError(
                "FixMatch needs a labelled source stream and two views of a target stream",
                hint="FixMatch cannot train on cached features",
            )
        logits = network(torch.cat([source.inputs, target.inputs, target.strong]))
        labelled, weak, strong = logits.split([len(source.inputs), len(target.inputs), len(target.strong)])
        supervised = functional.cross_entropy(labelled, source.labels)
        pseudo, sure = consistency(weak, strong, self.threshold)
        return {
            "total": supervised + self.weight * pseudo,
            "source": supervised.detach(),
            "pseudo": pseudo.detach(),
            "confident": sure,
        }


class FixMatch(TrainedAdapter):
    """Self-training with two views; the target needs no classes that it lacks, as each image votes for itself.

    Pseudo-labels need images that can be changed, so there is no training on cached features.
    """

    card: ClassVar[Card] = Card(
        name="fixmatch",
        summary="Self-training: confident classes of weakly changed target images teach the strongly changed ones",
        reference="Sohn et al. 2020, eq. 3 and 4; as domain adaptation: Jiang et al. 2022, Transfer-Learning-Library",
        traits=frozenset({"source-data", "target-data", "partial"}),
    )

    views: ClassVar[int] = 3
    modes: ClassVar[tuple[Mode, ...]] = ("all", "last")

    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the target's loss, beside the source's cross-entropy"
    )
    threshold: float = Field(
        0.9, ge=0, le=1, description="probability from which a prediction is a pseudo-label; the reference's"
    )
    lr: float = Field(
        3e-3, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD); the reference's"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the bottleneck's units that is dropped; the reference drops none",
    )

    def objective(self, task: TrainTask) -> FixMatchObjective:
        return FixMatchObjective(self.weight, self.threshold)

    def phases(self, task: TrainTask, mode: Mode) -> tuple[Phase, ...]:
        return (self.phase(task, mode, self.card.name, self.objective(task), strong_view=True),)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [FixMatch]
