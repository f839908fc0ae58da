"""DANN: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.discriminator import discriminator, domain_game
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective, Setup
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import nn

    from tlcore.training.network import Network


class DannObjective(Objective):
    """Cross-entropy on the source plus the domain loss behind a gradient reversal.

    The discriminator descends on the domain loss; the reversal, whose strength grows with progress, makes
    the features ascend on it. One move therefore plays both sides of the game.
    """

    def __init__(self, hidden: int, weight: float) -> None:
        self.hidden, self.weight = hidden, weight
        self.discriminator: nn.Module | None = None

    def setup(self, setup: Setup) -> nn.Module:
        self.discriminator = discriminator(setup.network.feature_dim, self.hidden)
        return self.discriminator

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "DANN")
        assert self.discriminator is not None
        game = domain_game(self.discriminator, seen.source_features, seen.target_features, batch.progress)
        return {
            "total": seen.supervised + self.weight * game.loss,
            "source": seen.supervised.detach(),
            "domain": game.loss.detach(),
            "domain_accuracy": game.accuracy,
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
