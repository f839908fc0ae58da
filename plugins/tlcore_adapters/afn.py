"""AFN: features of both domains whose norms grow step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import both_domains, mean_entropy
from tlcore.training.plan import Batch, Losses, Objective
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network


def norm_step(features: Tensor, step: float) -> Tensor:
    """Mean squared distance of each norm to itself as it is now plus `step` (Xu et al. 2019, eq. 9, L_d).

    features: float [n, d]. The value is step^2 always; what counts is the gradient, -2 step x / (n |x|), a pull of
    the same strength on every image. A zero vector has no direction to grow in: its gradient is zero.
    """
    import torch

    norms: Tensor = torch.linalg.vector_norm(features, dim=1)
    return torch.square(norms - (norms.detach() + step)).mean()


class AfnObjective(Objective):
    """Cross-entropy on the source, plus weight times the norm steps of source and target, plus target entropy.

    The two domains' means are added, as in the authors' code; the paper's eq. 9 has their mean.
    """

    def __init__(self, weight: float, step: float, entropy: float) -> None:
        self.weight, self.step, self.entropy = weight, step, entropy

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "AFN")
        growth = norm_step(seen.source_features, self.step) + norm_step(seen.target_features, self.step)
        entropy = mean_entropy(seen.target_logits)
        return {
            "total": seen.supervised + self.weight * growth + self.entropy * entropy,
            "source": seen.supervised.detach(),
            "source_norm": seen.source_features.detach().norm(dim=1).mean(),
            "target_norm": seen.target_features.detach().norm(dim=1).mean(),
            "target_entropy": entropy.detach(),
        }


class Afn(TrainedAdapter):
    """Stepwise adaptive feature norm (SAFN): target features are often too short to be classified safely."""

    card: ClassVar[Card] = Card(
        name="afn",
        summary="Stepwise adaptive feature norm: features of both domains grow until they are told apart safely",
        reference="Xu et al. 2019, eq. 9 (SAFN); entropy as in SAFN+ENT",
        traits=frozenset({"source-data", "target-data", "partial"}),
    )

    weight: float = Field(
        0.05, ge=0, le=1e3, description="of the norm steps, beside the source's cross-entropy"
    )
    step: float = Field(1.0, gt=0, le=1e3, description="by how much a norm is to grow, delta r of the paper")
    entropy: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="weight of the target predictions' entropy; 0.1 in the authors' SAFN+ENT",
    )

    def objective(self, task: TrainTask) -> AfnObjective:
        return AfnObjective(self.weight, self.step, self.entropy)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Afn]
