"""BSP on DANN: adversarial alignment that may not live off a few dominant directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.discriminator import discriminator, domain_game
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective, Setup
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network


def spectral_penalty(source: Tensor, target: Tensor, count: int) -> Tensor:
    """Sum of the `count` largest squared singular values of each domain's features (Chen et al. 2019, L_bsp).

    source: float [n, d]; target: float [m, d]; one batch each, not centred. All of them where a batch has fewer.
    A scalar, at most ||source||^2 + ||target||^2.

    Raises:
        PluginError: features that are not finite, which have no singular values.
    """
    import torch

    if not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise PluginError("BSP met features that are not finite", hint="use a smaller learning rate")
    leading = [torch.linalg.svdvals(x)[:count] for x in (source, target)]
    return torch.cat(leading).pow(2).sum()


class BspObjective(Objective):
    """DANN's loss plus `spectral` times the penalty on the leading singular values."""

    def __init__(self, hidden: int, weight: float, spectral: float, count: int) -> None:
        self.hidden, self.weight, self.spectral, self.count = hidden, weight, spectral, count
        self.discriminator: nn.Module | None = None

    def setup(self, setup: Setup) -> nn.Module:
        self.discriminator = discriminator(setup.network.feature_dim, self.hidden)
        return self.discriminator

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "BSP")
        assert self.discriminator is not None
        game = domain_game(self.discriminator, seen.source_features, seen.target_features, batch.progress)
        penalty = spectral_penalty(seen.source_features, seen.target_features, self.count)
        return {
            "total": seen.supervised + self.weight * game.loss + self.spectral * penalty,
            "source": seen.supervised.detach(),
            "domain": game.loss.detach(),
            "domain_accuracy": game.accuracy,
            "spectral": penalty.detach(),
        }


class Bsp(TrainedAdapter):
    """DANN with batch spectral penalisation.

    Adversarial training favours the directions with the largest singular values, which transfer, over the rest,
    which tell classes apart; the penalty holds the former down. It is not centred, so it also shortens the mean
    feature: on cached features, where little else can move, a tenth of the default weight has done less harm.
    """

    card: ClassVar[Card] = Card(
        name="bsp",
        summary="DANN + BSP: adversarial alignment, with a penalty on the features' leading singular values",
        reference="Chen et al. 2019, section 4 (batch spectral penalisation), on Ganin et al. 2016",
        traits=frozenset({"source-data", "target-data"}),
    )

    own_modules: ClassVar[bool] = True

    lr: float = Field(
        0.003, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD); the reference code's"
    )
    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the domain loss, beside the source's cross-entropy"
    )
    spectral: float = Field(2e-4, ge=0, le=1e3, description="weight of the penalty; the reference code's")
    count: int = Field(1, ge=1, le=4096, description="singular values that are held down, k of the paper")
    hidden: int = Field(
        256, ge=1, le=8192, description="units of each of the discriminator's two hidden layers"
    )

    def objective(self, task: TrainTask) -> BspObjective:
        return BspObjective(self.hidden, self.weight, self.spectral, self.count)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Bsp]
