"""TENT: the scales and shifts of the normalisation layers move until predictions on the target are certain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import PluginError, UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import mean_entropy
from tlcore.training.plan import Batch, Group, Losses, Objective, Phase, Setup
from tlcore.training.trained_adapter import Mode, TrainedAdapter

if TYPE_CHECKING:
    from torch import nn

    from tlcore.training.network import Network


@contextmanager
def averaging(network: nn.Module, step: int) -> Iterator[None]:
    """Running statistics become the mean over the batches of steps 0 … step, and torch's own running average once a
    batch weighs no more than that. Each layer has its own momentum again afterwards.

    Without it a pass over ten batches would leave the source's statistics a third of their weight, in a network
    whose scales were learnt under the target's.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = max(layer.momentum or 0.0, 1 / (step + 1))
    try:
        yield
    finally:
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum


class TentObjective(Objective):
    """Mean entropy of the predictions on the target; batch norm normalises by the batch, as in the paper.

    The paper keeps normalising by the batch when it predicts. A network that is saved must predict one image at a
    time, so here the statistics of the target's batches are kept in the running averages.
    """

    def setup(self, setup: Setup) -> None:
        from tlcore.training.parameters import select

        try:
            select(setup.network, None, "norm")
        except PluginError:
            raise PluginError(
                "this network has no normalisation layer with a scale or a shift; TENT has nothing to adapt",
                hint="choose an adapter that trains other layers, such as coral, or a network with batch norm",
            ) from None

    def loss(self, network: Network, batch: Batch) -> Losses:
        if batch.target is None or len(batch.target.inputs) < 2:
            raise PluginError("TENT needs a target stream, and at least two images of it in a batch")
        with averaging(network, batch.step):
            logits = network(batch.target.inputs)
        return {"total": mean_entropy(logits)}


class Tent(TrainedAdapter):
    """Entropy minimisation over normalisation layers alone: one pass over the target, no source image.

    The paper moves batch norm; where a network has layer or group norm, these move. Adam as in the reference
    configuration for CIFAR-10-C (rate 1e-3, no weight decay). One pass has one look, at its end; with `steps` there are as
    many as `checkpoints` says, and a collapse ends the training.
    """

    card: ClassVar[Card] = Card(
        name="tent",
        summary="Certain predictions on the target by moving the scales and shifts of norm layers alone",
        reference="Wang et al. 2021, section 3 and the authors' configuration for CIFAR-10-C",
        traits=frozenset({"target-data", "batch-norm", "target-only"}),
    )

    modes: ClassVar[tuple[Mode, ...]] = ("all",)

    lr: float = Field(1e-3, gt=0, le=1, description="learning rate of the norm layers (Adam)")
    steps: int | None = Field(
        None, ge=1, le=1_000_000, description="gradient steps; none: one pass over the target's images"
    )
    batch_size: int = Field(
        64, ge=2, le=4096, description="images of a batch; the paper has 64 on ImageNet-C, 200 on CIFAR-C"
    )
    augment: Literal["none", "light", "flip", "strong"] = Field("none", description="as in the tuners")

    def objective(self, task: TrainTask) -> TentObjective:
        return TentObjective()

    def phases(self, task: TrainTask, mode: Mode) -> tuple[Phase, ...]:
        if self.bottleneck is not None:
            raise UserError("tent cannot have a fresh bottleneck: it sees no label that could train one")
        groups = (Group("norm", self.lr),)
        streams = self.phase(
            task, mode, self.card.name, self.objective(task), streams=("target",), groups=groups
        )
        phase = replace(streams, optimizer="adamw", schedule="constant")
        return (phase if self.steps is not None else replace(phase, epochs=1, steps_per_epoch=None),)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Tent]
