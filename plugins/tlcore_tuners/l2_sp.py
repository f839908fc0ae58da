"""L2-SP: weight decay towards the pretrained weights instead of zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner
from tlcore.training.objectives import Supervised, labelled
from tlcore.training.plan import Batch, Losses, Setup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from tlcore.training.network import Network


def starting_point_penalty(weights: Iterable[Tensor], start: Iterable[Tensor]) -> Tensor:
    """||w - w0||^2 / 2 over all tensors together, a scalar (Li, Grandvalet & Davoine 2018, section 3, L2-SP).

    Raises:
        PluginError: the numbers of tensors differ, or there is none.
    """
    import torch

    now, then = list(weights), list(start)
    if len(now) != len(then) or not now:
        raise PluginError(f"L2-SP compares {len(now)} weight tensors with {len(then)} of the starting point")
    return torch.stack([(w - w0).square().sum() for w, w0 in zip(now, then, strict=True)]).sum() / 2


class L2SpObjective(Supervised):
    """The supervised loss + alpha / 2 ||w - w0||^2 on the backbone + beta / 2 ||v - v0||^2 on the head's weights.

    In the paper v0 is 0, since the head has no start worth keeping. Here it is the probe; a pull to zero would undo it, the
    stronger the smaller the features are.
    """

    def __init__(self, smoothing: float, balanced: bool, alpha: float, beta: float) -> None:
        super().__init__(smoothing, balanced=balanced)
        self.alpha, self.beta = alpha, beta

    def setup(self, setup: Setup) -> nn.Module:
        from torch import nn

        super().setup(setup)
        self.start = nn.Module()  # in the resume file: later the network's weights are others
        for number, value in enumerate(setup.network.backbone.parameters()):
            self.start.register_buffer(f"start{number}", value.detach().clone())
        self.start.register_buffer("head", setup.network.head.get_parameter("weight").detach().clone())
        return self.start

    def loss(self, network: Network, batch: Batch) -> Losses:
        fit = self.supervised(network(labelled(batch).inputs), batch)
        *start, head_start = self.start.buffers()
        penalty = starting_point_penalty(network.backbone.parameters(), start)
        head = starting_point_penalty([network.head.get_parameter("weight")], [head_start])
        return {
            "total": fit + self.alpha * penalty + self.beta * head,
            "fit": fit.detach(),
            "distance": penalty.detach(),
        }


class L2Sp(NetworkTuner):
    """From the probe, fine-tune everything, held to where it started."""

    card: ClassVar[Card] = Card(
        name="l2-sp",
        summary="Fine-tune everything with an L2 penalty on the distance to the pretrained weights",
        reference="Li, Grandvalet & Davoine 2018 (explicit inductive bias for transfer learning), section 3, L2-SP",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    probed: ClassVar[bool] = True
    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "alpha", "beta")

    alpha: float = Field(0.01, ge=0, le=100, description="weight of the distance to the pretrained backbone")
    beta: float = Field(0.01, ge=0, le=100, description="weight of the distance to the probed head")
    weight_decay: float = Field(
        0.0, ge=0, le=0.3, description="decoupled, towards zero; beside alpha and beta"
    )
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> L2SpObjective:
        return L2SpObjective(self.smoothing, self.class_weights == "balanced", self.alpha, self.beta)


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [L2Sp]
