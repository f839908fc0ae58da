"""AdaBN: batch norm with the statistics of the target's images; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import Batch, Losses, Move, Objective, Phase, Setup, TrainPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network


def merge_moments(
    count: Tensor, mean: Tensor, squares: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, means and sums of squared deviations of all values so far (Chan, Golub & LeVeque 1983, eq. 2.1).

    count: float64 scalar; mean, squares: float64 [C]; values: float [n, C, ...], of which each channel gets n times
    the rest new values. The order of the parts does not matter but for rounding.
    """
    import torch

    axes = [axis for axis in range(values.ndim) if axis != 1]
    variance, centre = torch.var_mean(values, axes, correction=0)
    new = values.numel() // values.shape[1]
    total, shift = count + new, centre.double() - mean
    return (
        total,
        mean + shift * new / total,
        squares + variance.double() * new + shift.pow(2) * count * new / total,
    )


def batch_norms(network: nn.Module) -> list[Any]:
    """The batch-norm layers that keep running statistics, in the order of the network's modules."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


class AdaBnObjective(Objective):
    """Collects what each batch-norm layer receives and makes it the layer's running mean and variance.

    torch's own running averages forget: after a pass with momentum 0.1 the last ten batches count and the source is
    never gone. Here the moments of all images are merged, in buffers of a module of its own, and written after each
    batch: the layers normalise by their batch meanwhile and do not read them. A layer deep in the network receives
    values that the layers before it have normalised by their batch, so that larger batches are closer to the whole.
    """

    def setup(self, setup: Setup) -> nn.Module:
        import torch
        from torch import nn

        layers = batch_norms(setup.network)
        if not layers:
            raise PluginError(
                "this network has no batch-norm layer; AdaBN has nothing to adapt",
                hint="choose an adapter that trains, such as coral, or a network with batch norm, such as a ResNet",
            )
        self.moments = nn.Module()
        for place, layer in enumerate(layers):
            for name in ("mean", "squares"):
                self.moments.register_buffer(
                    f"{name}{place}", torch.zeros(layer.num_features, dtype=torch.float64)
                )
            self.moments.register_buffer(f"count{place}", torch.zeros((), dtype=torch.float64))
        return self.moments

    def loss(self, network: Network, batch: Batch) -> Losses:
        import torch

        if batch.target is None or len(batch.target.inputs) < 2:
            raise PluginError("AdaBN needs a target stream, and at least two images of it in a batch")
        layers = batch_norms(network)
        network.eval()  # what is dropped at random in training would distort the statistics
        for layer in layers:
            layer.train()
        hooks = [layer.register_forward_pre_hook(self._collect(place)) for place, layer in enumerate(layers)]
        try:
            with torch.no_grad():
                logits = network(batch.target.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        for place, layer in enumerate(layers):
            count, mean, squares = self._read(place)
            if count > 1:
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(squares / (count - 1))
        p = logits.softmax(1)
        return {"entropy": -(p * logits.log_softmax(1)).sum(1).mean()}

    def _read(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        count, mean, squares = (
            self.moments.get_buffer(f"{name}{place}") for name in ("count", "mean", "squares")
        )
        return count, mean, squares

    def _collect(self, place: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            old = self._read(place)
            for kept, merged in zip(old, merge_moments(*old, inputs[0]), strict=True):
                kept.copy_(merged)

        return hook


class AdaBn(Adapter):
    """The cheapest adapter: one pass over the target's images, no gradient, no source image.

    Whole images pass through the backbone; there is no form of it on cached features. The network that it leaves
    is for the target: on source images its statistics are wrong. It pays where batch norm learnt the source, as in full
    fine-tuning; under a head on a frozen backbone it is the pretraining's statistics that go, and the head may miss them.
    """

    card: ClassVar[Card] = Card(
        name="adabn",
        summary="Batch-norm statistics of the target's images in place of the source's; no training",
        reference="Li et al. 2016, algorithm 1; merged moments: Chan, Golub & LeVeque 1983",
        traits=frozenset({"target-data", "batch-norm", "target-only"}),
    )

    batch_size: int = Field(
        64, ge=2, le=4096, description="images that pass together; more is closer to the whole"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        return TrainPlan(
            (
                Phase(
                    name=self.card.name,
                    objective=AdaBnObjective(),
                    moves=(Move(()),),
                    epochs=1,
                    streams=("target",),
                    batch_size=self.batch_size,
                    augment="none",
                    choose="last",
                ),
            )
        )


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [AdaBn]
