"""CDAN+E: a discriminator that sees features together with what the head makes of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.discriminator import discriminator, domain_game
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective, Setup
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network


def multilinear(features: Tensor, probabilities: Tensor) -> Tensor:
    """f x p, the outer product of each image's features [n, d] and probabilities [n, K]: [n, K d], class by class
    (Long et al. 2018, section 3.1)."""
    return (probabilities.unsqueeze(2) * features.unsqueeze(1)).flatten(1)


def random_multilinear(
    features: Tensor, probabilities: Tensor, feature_map: Tensor, class_map: Tensor
) -> Tensor:
    """(f A) * (p B) / sqrt(r), an unbiased sketch of the outer product: its inner products are, on average over
    A [d, r] and B [K, r] of independent entries with mean 0 and variance 1, those of f x p (Long et al. 2018,
    section 3.1 and theorem 1). features: [n, d]; probabilities: [n, K]; gives [n, r]."""
    seen: Tensor = (features @ feature_map) * (probabilities @ class_map)
    return seen / math.sqrt(feature_map.shape[1])


def entropy_weights(probabilities: Tensor) -> Tensor:
    """1 + exp(-H(p)) of each row of [n, K], H in nats: from 1 (knows little) to 2 (certain): easy images lead
    (Long et al. 2018, section 3.2)."""
    import torch

    return 1 + torch.exp(torch.xlogy(probabilities, probabilities).sum(1))


class CdanObjective(Objective):
    """Cross-entropy on the source plus the conditional domain loss behind a gradient reversal.

    What the discriminator is told of the head's opinion, and the weights made of it, carry no gradient (as in the
    public reference code): the game shapes the features, not the certainty. Weights are scaled within
    each domain, as the authors' code does, so the source, on which the head is surer, does not weigh more.
    """

    def __init__(self, hidden: int, weight: float, entropy: bool, largest: int, random: int) -> None:
        self.hidden, self.weight, self.entropy = hidden, weight, entropy
        self.largest, self.random = largest, random
        self.own: nn.ModuleDict | None = None

    def setup(self, setup: Setup) -> nn.Module:
        import torch
        from torch import nn

        width, classes = setup.network.feature_dim, setup.network.head.out_features
        exact = width * classes <= self.largest
        judge = discriminator(width * classes if exact else self.random, self.hidden)
        self.own = nn.ModuleDict({"discriminator": judge})
        if not exact:
            # Buffers, so that a resumed training goes on with the same maps.
            self.own.register_buffer("feature_map", torch.randn(width, self.random))
            self.own.register_buffer("class_map", torch.randn(classes, self.random))
        return self.own

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "CDAN")
        assert self.own is not None
        opinions = [z.detach().softmax(1) for z in (seen.source_logits, seen.target_logits)]
        source, target = (
            self._joint(f, p)
            for f, p in zip((seen.source_features, seen.target_features), opinions, strict=True)
        )
        weights = [entropy_weights(p) if self.entropy else None for p in opinions]
        game = domain_game(self.own["discriminator"], source, target, batch.progress, *weights)
        return {
            "total": seen.supervised + self.weight * game.loss,
            "source": seen.supervised.detach(),
            "domain": game.loss.detach(),
            "domain_accuracy": game.accuracy,
        }

    def _joint(self, features: Tensor, probabilities: Tensor) -> Tensor:
        assert self.own is not None
        maps = dict(self.own.named_buffers(recurse=False))
        if not maps:
            return multilinear(features, probabilities)
        return random_multilinear(features, probabilities, maps["feature_map"], maps["class_map"])


class Cdan(TrainedAdapter):
    """Adversarial alignment of features class by class."""

    card: ClassVar[Card] = Card(
        name="cdan",
        summary="Conditional adversarial (CDAN+E): domains cannot be told apart even given the predicted class",
        reference="Long et al. 2018, sections 3.1 and 3.2",
        traits=frozenset({"source-data", "target-data"}),
    )

    own_modules: ClassVar[bool] = True

    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the domain loss, beside the source's cross-entropy"
    )
    entropy: bool = Field(True, description="images of certain prediction weigh more (CDAN+E)")
    hidden: int = Field(
        1024, ge=1, le=8192, description="units of each of the discriminator's two hidden layers"
    )
    largest: int = Field(
        4096, ge=1, le=1_000_000, description="features times classes up to which the outer product is exact"
    )
    random: int = Field(1024, ge=1, le=65536, description="width of the random map that stands in above that")

    def objective(self, task: TrainTask) -> CdanObjective:
        return CdanObjective(self.hidden, self.weight, self.entropy, self.largest, self.random)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Cdan]
