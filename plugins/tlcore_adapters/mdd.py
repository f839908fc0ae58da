"""MDD: an auxiliary head looks for a disagreement on the target; the features leave it none."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective, Setup
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network

SHIFT = 1e-6
"""Added before a logarithm: log 0 is -13.8, and its gradient vanishes rather than explodes (reference code)."""


def margin_disparity(
    source: Tensor, source_auxiliary: Tensor, target: Tensor, target_auxiliary: Tensor, margin: float
) -> Tensor:
    """mean_t log(1 - q_t) - margin * mean_s (-log q_s): the margin disparity discrepancy in the combined
    cross-entropy form (Zhang et al. 2019, section 5.2).

    Logits of head and auxiliary head, float [n, K] on the source and [m, K] on the target. q is the auxiliary head's
    probability of the class that the head predicts; the prediction itself has no gradient. margin is the
    factor gamma = exp(rho) of the paper, for a margin rho = log gamma, in front of the source's term. The
    logarithm on the target is that of min(1 - q + 1e-6, 1). A scalar, at most 0.

    Raises:
        PluginError: a single class, over which two heads cannot disagree.
    """
    import torch
    from torch.nn import functional

    if target.shape[1] < 2:
        raise PluginError("MDD needs at least two classes")
    agreed = functional.cross_entropy(source_auxiliary, source.argmax(1))
    q = target_auxiliary.softmax(1).gather(1, target.argmax(1, keepdim=True))
    return torch.log((1 - q + SHIFT).clamp_max(1.0)).mean() - margin * agreed


class MddObjective(Objective):
    """Cross-entropy on the source plus weight times the negative disparity, for the auxiliary head to minimise.

    A gradient reversal lies between the features and the auxiliary head: it looks for the largest disparity, the
    features for the smallest. The reversal warms up to `peak`, 0.1 in the reference code. The theory has both heads
    from one class of functions, so the auxiliary head is linear as the head is (in the reference code both
    have a hidden layer, of 1,024 units).
    """

    def __init__(self, weight: float, margin: float, hidden: int | None, peak: float) -> None:
        self.weight, self.margin, self.hidden, self.peak = weight, margin, hidden, peak
        self.auxiliary: nn.Module | None = None

    def setup(self, setup: Setup) -> nn.Module:
        from torch import nn

        width, classes = setup.network.feature_dim, setup.network.head.out_features
        sizes = (width, classes) if self.hidden is None else (width, self.hidden, classes)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layer = nn.Linear(inputs, outputs)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
            layers += [nn.ReLU(), nn.Dropout(0.5), layer] if layers else [layer]
        self.auxiliary = nn.Sequential(*layers)
        return self.auxiliary

    def loss(self, network: Network, batch: Batch) -> Losses:
        from tlcore.training.reversal import reversal_strength, reverse_gradient

        seen = both_domains(network, batch, "MDD")
        assert self.auxiliary is not None
        strength = reversal_strength(batch.progress, peak=self.peak)
        source, target = (
            self.auxiliary(reverse_gradient(features, strength))
            for features in (seen.source_features, seen.target_features)
        )
        disparity = margin_disparity(seen.source_logits, source, seen.target_logits, target, self.margin)
        return {
            "total": seen.supervised - self.weight * disparity,
            "source": seen.supervised.detach(),
            "disparity": disparity.detach(),
        }


class Mdd(TrainedAdapter):
    """Margin disparity discrepancy, a bound on the target's error made into a game."""

    card: ClassVar[Card] = Card(
        name="mdd",
        summary="Margin disparity: features on which no second head can agree on source and disagree on target",
        reference="Zhang et al. 2019, sections 5.1 and 5.2",
        traits=frozenset({"source-data", "target-data"}),
    )

    own_modules: ClassVar[bool] = True

    lr: float = Field(
        0.004, gt=0, le=1, description="peak learning rate of head and bottleneck (SGD); the reference code's"
    )
    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the disparity, beside the source's cross-entropy"
    )
    margin: float = Field(
        4.0, gt=0, le=1e3, description="factor gamma of the source's disparity, exp of the margin rho"
    )
    hidden: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="units of a hidden layer in the auxiliary head; none: linear, as the head",
    )
    reversal: float = Field(0.1, ge=0, le=10, description="largest strength of the gradient reversal")

    def objective(self, task: TrainTask) -> MddObjective:
        return MddObjective(self.weight, self.margin, self.hidden, self.reversal)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Mdd]
