"""BSS: batch spectral shrinkage, against features that transfer badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner
from tlcore.training.objectives import Supervised, labelled
from tlcore.training.plan import Batch, Losses

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network


def spectral_shrinkage(features: Tensor, count: int) -> Tensor:
    """Sum of the `count` smallest squared singular values of a batch's features (Chen et al. 2019, section 4.2).

    features: float [n, d], not centred. The largest singular value is never among them: a batch of one image has no
    small ones, and the sum is zero. A scalar; its gradient needs no differences of singular values and is finite where
    they coincide.

    Raises:
        PluginError: features that are not finite, which have no singular values.
    """
    import torch

    if not torch.isfinite(features).all():
        raise PluginError("BSS met features that are not finite", hint="use a smaller learning rate")
    values: Tensor = torch.linalg.svdvals(features)
    return values[max(1, len(values) - count) :].square().sum()


class BssObjective(Supervised):
    """The supervised loss + weight times the shrinkage of the head's inputs."""

    def __init__(self, smoothing: float, balanced: bool, weight: float, count: int) -> None:
        super().__init__(smoothing, balanced=balanced)
        self.weight, self.count = weight, count

    def loss(self, network: Network, batch: Batch) -> Losses:
        features = network.features(labelled(batch).inputs)
        fit = self.supervised(network.logits(features), batch)
        shrinkage = spectral_shrinkage(features, self.count)
        return {
            "total": fit + self.weight * shrinkage,
            "fit": fit.detach(),
            "shrinkage": shrinkage.detach(),
        }


class Bss(NetworkTuner):
    """Fine-tune everything, the weakest directions of the features suppressed.

    With few images, directions with small singular values of pretrained features stay as they are and carry what does
    not belong to the new labels. The penalty is small beside the loss and can be combined with others.
    """

    card: ClassVar[Card] = Card(
        name="bss",
        summary="Fine-tune everything with batch spectral shrinkage of the features' smallest singular values",
        reference="Chen, Wang, Fu, Long & Wang 2019 (catastrophic forgetting meets negative transfer), section 4.2",
        traits=frozenset({"target-labels", "multi-label"}),
    )

    probed: ClassVar[bool] = True
    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "weight", "count")

    weight: float = Field(1e-3, ge=0, le=10, description="of the penalty, eta of the paper")
    count: int = Field(1, ge=1, le=4096, description="singular values that are held down, k of the paper")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> BssObjective:
        return BssObjective(self.smoothing, self.class_weights == "balanced", self.weight, self.count)


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Bss]
