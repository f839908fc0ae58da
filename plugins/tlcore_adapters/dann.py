"""DANN: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective, Setup
from tlcore.training.trained_adapter import TrainedAdapter

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
        from tlcore.training.reversal import reversal_strength, reverse_gradient

        seen = both_domains(network, batch, "DANN")
        assert self.discriminator is not None
        strength = reversal_strength(batch.progress)
        source, target = (
            self.discriminator(reverse_gradient(features, strength))
            for features in (seen.source_features, seen.target_features)
        )
        domain = domain_loss(source, target)
        correct = (source > 0).float().mean() + (target <= 0).float().mean()
        return {
            "total": seen.supervised + self.weight * domain,
            "source": seen.supervised.detach(),
            "domain": domain.detach(),
            "domain_accuracy": correct.detach() / 2,
        }


class Dann(TrainedAdapter):
    """Adversarial alignment of feature distributions."""

    card: ClassVar[Card] = Card(
        name="dann",
        summary="Adversarial: features from which a discriminator cannot tell source from target",
        reference="Ganin & Lempitsky 2015; Ganin et al. 2016, eq. 8 to 10 and section 5.2.2",
        traits=frozenset({"source-data", "target-data"}),
    )

    own_modules: ClassVar[bool] = True

    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the domain loss, beside the source's cross-entropy"
    )
    hidden: int = Field(
        256, ge=1, le=8192, description="units of each of the discriminator's two hidden layers"
    )

    def objective(self, task: TrainTask) -> DannObjective:
        return DannObjective(self.hidden, self.weight)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Dann]
