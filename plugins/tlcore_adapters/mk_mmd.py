"""DAN: a multi-kernel distance between source and target features is made small while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.kernels import mk_mmd
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from tlcore.training.network import Network


class MkMmdObjective(Objective):
    """Cross-entropy on the source plus weight times the squared distance of the domains' kernel means.

    The paper compares the last three layers of AlexNet; as in the reference code (Jiang et al.,
    Transfer-Learning-Library) it is the head's inputs here. The estimate is the unbiased one over all pairs of a
    batch: it may be slightly negative. The paper's linear-time estimate takes two pairs of each image alone; on a
    batch its saving is nothing and its noise is larger.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "MK-MMD")
        gap = mk_mmd(seen.source_features.float(), seen.target_features.float())
        total = seen.supervised + self.weight * gap
        return {"total": total, "source": seen.supervised.detach(), "mmd": gap.detach()}


class MkMmd(TrainedAdapter):
    """Align the whole distribution of features, not its first two moments alone; without an adversary."""

    card: ClassVar[Card] = Card(
        name="mk-mmd",
        summary="DAN: small multi-kernel maximum mean discrepancy of source and target features",
        reference="Long et al. 2015, eq. 1, 2 and 4; estimate: Gretton et al. 2012, eq. 3",
        traits=frozenset({"source-data", "target-data"}),
    )

    weight: float = Field(
        1.0, ge=0, le=1e6, description="of the discrepancy, beside the source's cross-entropy"
    )
    lr: float = Field(
        3e-3, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD); the reference's"
    )
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="not applied to biases and norm layers; the reference's"
    )

    def objective(self, task: TrainTask) -> MkMmdObjective:
        return MkMmdObjective(self.weight)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [MkMmd]
