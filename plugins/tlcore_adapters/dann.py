"""DANN: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import Batch, Group, Losses, Move, Objective, Phase, Setup, TrainPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """Mean of the two domains' binary cross-entropies, source = 1, target = 0 (Ganin et al. 2016, eq. 8).

    source: logits [n, 1]; target: logits [m, 1]. Each domain weighs one half whatever its share of the batch.
    """
    from torch.nn import functional

    return (functional.softplus(-source).mean() + functional.softplus(target).mean()) / 2


class DannObjective(Objective):
    """Cross-entropy on the source plus the domain loss behind a gradient reversal.

    The discriminator descends on the domain loss; the reversal, whose strength grows with progress, makes
    the features ascend on it. One move therefore plays both sides of the game.
    """

    def __init__(self, hidden: int, weight: float) -> None:
        self.hidden, self.weight = hidden, weight
        self.discriminator: nn.Module | None = None

    def setup(self, setup: Setup) -> nn.Module:
        from torch import nn

        width = setup.network.feature_dim
        self.discriminator = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden), nn.ReLU(),
            nn.Linear(self.hidden, 1),
        )  # fmt: skip
        return self.discriminator

    def loss(self, network: Network, batch: Batch) -> Losses:
        import torch
        from torch.nn import functional

        from tlcore.training.reversal import reversal_strength, reverse_gradient

        if (
            batch.source is None
            or batch.source.labels is None
            or batch.target is None
            or self.discriminator is None
        ):
            raise PluginError("DANN needs a labelled source stream and a target stream")
        features = network.features(torch.cat([batch.source.inputs, batch.target.inputs]))
        count = len(batch.source.inputs)
        supervised = functional.cross_entropy(network.head(features[:count]), batch.source.labels)
        strength = reversal_strength(batch.progress)
        verdict = self.discriminator(reverse_gradient(features, strength))
        domain = domain_loss(verdict[:count], verdict[count:])
        correct = (verdict[:count] > 0).float().mean() + (verdict[count:] <= 0).float().mean()
        return {
            "total": supervised + self.weight * domain,
            "source": supervised.detach(),
            "domain": domain.detach(),
            "domain_accuracy": correct.detach() / 2,
        }


class Dann(Adapter):
    """Adversarial alignment of feature distributions."""

    card: ClassVar[Card] = Card(
        name="dann",
        summary="Adversarial: features from which a discriminator cannot tell source from target",
        reference="Ganin & Lempitsky 2015; Ganin et al. 2016, eq. 8 to 10 and section 5.2.2",
        traits=frozenset({"source-data", "target-data"}),
    )

    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the domain loss, beside the source's cross-entropy"
    )
    hidden: int = Field(
        256, ge=1, le=8192, description="units of each of the discriminator's two hidden layers"
    )
    epochs: int = Field(6, ge=1, le=1000, description="passes over the source images")
    lr: float = Field(1e-4, gt=0, le=1, description="peak learning rate of the network (AdamW)")
    discriminator_lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of the discriminator")
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled weight decay")
    batch_size: int = Field(32, ge=2, le=4096, description="images of each domain")
    augment: Literal["none", "light", "flip", "strong"] = Field("light", description="as in the tuners")

    def plan(self, task: TrainTask) -> TrainPlan:
        groups = (
            Group("all", self.lr, self.weight_decay),
            Group("objective", self.discriminator_lr, self.weight_decay),
        )
        phase = Phase(
            name="dann",
            objective=DannObjective(self.hidden, self.weight),
            moves=(Move(groups),),
            epochs=self.epochs,
            streams=("source", "target"),
            batch_size=self.batch_size,
            augment=self.augment,
        )
        return TrainPlan((phase,))


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Dann]
