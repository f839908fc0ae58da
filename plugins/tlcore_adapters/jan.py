"""JAN: features and predictions of source and target are matched together, by the kernel of their joint distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.kernels import joint_mmd
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from tlcore.training.network import Network


class JanObjective(Objective):
    """Cross-entropy on the source plus weight times the joint discrepancy of (features, probabilities).

    Images are near only where both their features and their predicted classes are near, so that features of one
    class are drawn to features of the same class. Unbiased estimate over all pairs of a batch.
    """

    def __init__(self, weight: float, width: float) -> None:
        self.weight, self.width = weight, width

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "JAN")
        gap = joint_mmd(
            (seen.source_features.float(), seen.source_logits.float().softmax(1)),
            (seen.target_features.float(), seen.target_logits.float().softmax(1)),
            self.width,
        )
        total = seen.supervised + self.weight * gap
        return {"total": total, "source": seen.supervised.detach(), "joint_mmd": gap.detach()}


class Jan(TrainedAdapter):
    """Align the joint distribution of features and predictions."""

    card: ClassVar[Card] = Card(
        name="jan",
        summary="Joint maximum mean discrepancy of features and predictions, made small while training",
        reference="Long et al. 2017, section 4; estimate: Gretton et al. 2012, eq. 3",
        traits=frozenset({"source-data", "target-data"}),
    )

    weight: float = Field(
        1.0, ge=0, le=1e6, description="of the joint discrepancy, beside the source's cross-entropy"
    )
    width: float = Field(
        1.68,
        gt=0,
        le=1e3,
        description="of the probabilities' Gaussian kernel, a squared distance; the authors' code has 1.68",
    )
    lr: float = Field(
        3e-3, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD); the reference's"
    )
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="not applied to biases and norm layers; the reference's"
    )

    def objective(self, task: TrainTask) -> JanObjective:
        return JanObjective(self.weight, self.width)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Jan]
