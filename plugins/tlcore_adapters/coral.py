"""Deep CORAL: the covariances of source and target features are pulled together while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network


def coral_gap(source: Tensor, target: Tensor) -> Tensor:
    """Squared Frobenius distance of covariances, ||Cs - Ct||^2 / (4 d^2) (Sun & Saenko 2016, eq. 1 to 3).

    source: float [n, d]; target: float [m, d]; C is the unbiased covariance (n - 1). A scalar.

    Raises:
        PluginError: fewer than two rows on a side, where no covariance is defined.
    """
    if min(len(source), len(target)) < 2:
        raise PluginError("CORAL needs at least two images of each domain in a batch")
    width = source.shape[1]

    def covariance(x: Tensor) -> Tensor:
        centred = x - x.mean(0, keepdim=True)
        return centred.T @ centred / (len(x) - 1)

    return (covariance(source) - covariance(target)).pow(2).sum() / (4 * width**2)


class CoralObjective(Objective):
    """Cross-entropy on the source plus weight times the gap between the domains' covariances.

    The paper compares the logits of a network of 1,000 classes; here the features before the head are the
    default, since a head of few classes has little covariance to compare.
    """

    def __init__(self, weight: float, layer: Literal["features", "logits"]) -> None:
        self.weight, self.layer = weight, layer

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "CORAL")
        features = self.layer == "features"
        source, target = (
            (seen.source_features, seen.target_features)
            if features
            else (seen.source_logits, seen.target_logits)
        )
        gap = coral_gap(source.float(), target.float())
        total = seen.supervised + self.weight * gap
        return {"total": total, "source": seen.supervised.detach(), "coral": gap.detach()}


class Coral(TrainedAdapter):
    """Align second-order statistics of source and target; the gentlest of the trained adapters."""

    card: ClassVar[Card] = Card(
        name="coral",
        summary="Deep CORAL: align feature covariances of source and target while training",
        reference="Sun & Saenko 2016, eq. 1 to 6",
        traits=frozenset({"source-data", "target-data"}),
    )

    weight: float = Field(
        1.0, ge=0, le=1e6, description="of the covariance gap, beside the source's cross-entropy"
    )
    layer: Literal["features", "logits"] = Field("features", description="where the covariances are compared")

    def objective(self, task: TrainTask) -> CoralObjective:
        return CoralObjective(self.weight, self.layer)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Coral]
