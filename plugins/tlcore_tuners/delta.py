"""DELTA: hold what the network makes of an image, rather than its weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner
from tlcore.training.objectives import Supervised, labelled
from tlcore.training.plan import Batch, Losses, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from tlcore.training.network import Network

Layers = tuple[tuple[str, int], ...]
"""Modules by name, and how many channels their outputs have."""

ATTENTION_BATCHES = 10
"""Batches over which the channels' importance is averaged; the reference code's."""


def behaviour_gap(now: Tensor, then: Tensor, attention: Tensor) -> Tensor:
    """c / (2 p) sum_j a_j ||now_j - then_j||^2, mean over images: how far the maps have moved (Li et al. 2019, eq. 4).

    now, then: float [n, p, c], maps of c channels at p positions; no gradient flows into `then`. attention: float [c],
    sums to 1. A scalar, 0 where nothing has moved. The factors are the reference code's, which sums over its 48 images.
    """
    moved = (now - then.detach()).square().sum(1)  # [n, c]
    return now.shape[2] / (2 * now.shape[1]) * (moved * attention).sum(1).mean()


def removal_increase(loss: Tensor, maps: list[Tensor], layers: Layers) -> list[Tensor]:
    """How much the loss would grow without each channel, to first order: -sum over images and positions of the map
    times the loss's slope there (Molchanov et al. 2017, equation 7, with its sign).

    The paper removes the channels one by one, a pass each (section 3.3). maps: outputs of the layers, which the loss was
    computed from. Float [c] each.
    """
    import torch

    slopes = torch.autograd.grad(loss, maps)
    parts = [each.detach().float() * slope.float() for each, slope in zip(maps, slopes, strict=True)]
    return [
        -by_position(part, channels, name).sum((0, 1))
        for part, (name, channels) in zip(parts, layers, strict=True)
    ]


def channel_attention(increase: Tensor) -> Tensor:
    """softmax of the increases [c], standardised and divided by 5 as in the reference code: positive, sums to 1; 1 / c
    each where all are alike."""
    import torch

    spread = increase.std(unbiased=False).clamp_min(1e-12)
    return torch.softmax((increase - increase.mean()) / spread / 5, dim=0)


def last_maps(backbone: nn.Module, count: int) -> Layers:
    """Modules whose outputs are the backbone's last `count` feature maps, as timm names them, and their channels.

    Raises:
        PluginError: the backbone does not say what its feature maps are.
    """
    modules = dict(backbone.named_modules())
    told = getattr(backbone, "feature_info", None) or ()
    found = [(one["module"], int(one["num_chs"])) for one in told if one.get("module") in modules]
    if not found:
        raise PluginError(
            f"a {type(backbone).__name__} does not say what its feature maps are",
            hint="choose l2-sp, or lp-ft",
        )
    return tuple(found[-count:])


def by_position(output: object, channels: int, name: str) -> Tensor:
    """A module's output as [n, p, c]: from [n, c, h, w], [n, h, w, c], tokens [n, p, c] or pooled [n, c].

    Raises:
        PluginError: it is none of them.
    """
    import torch

    if isinstance(output, torch.Tensor) and output.ndim > 1:
        if output.ndim == 4 and output.shape[1] == channels:
            return output.flatten(2).transpose(1, 2)
        if output.shape[-1] == channels:
            return output.reshape(len(output), -1, channels)
    raise PluginError(f"{name} gives no feature map of {channels} channels", hint="choose l2-sp, or lp-ft")


@contextmanager
def recorded(backbone: nn.Module, layers: Layers, *, leaves: bool = False) -> Iterator[list[Tensor]]:
    """The layers' outputs in a pass through the backbone, first layer first; with `leaves` the rest of the pass can be
    differentiated with respect to them though no weight can."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if leaves and not output.requires_grad:
            output = output.detach().requires_grad_()
        maps.append(output)
        return output.clone()  # what follows may work in place

    handles = [backbone.get_submodule(name).register_forward_hook(keep) for name, _ in layers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


class DeltaObjective(Supervised):
    """The supervised loss + weight times the gap of the last maps + beta / 2 ||v - v0||^2 on the head's weights.

    The gap is taken relative to that of maps that are all zero, so that one weight fits maps of every scale.
    v0 is the probe; in the paper, whose head starts anew, it is 0.
    """

    def __init__(
        self, smoothing: float, balanced: bool, weight: float, beta: float, maps: int, attention: bool
    ) -> None:
        super().__init__(smoothing, balanced=balanced)
        self.weight, self.beta, self.maps, self.attention = weight, beta, maps, attention

    def setup(self, setup: Setup) -> nn.Module:
        from copy import deepcopy

        import torch
        from torch import nn

        super().setup(setup)
        self.layers = last_maps(setup.network.backbone, self.maps)
        self.own = nn.Module()
        self.own.start = deepcopy(setup.network).requires_grad_(False)
        self.own.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        for number, (_, channels) in enumerate(self.layers):
            self.own.register_buffer(f"increase{number}", torch.zeros(channels))
        return self.own

    def loss(self, network: Network, batch: Batch) -> Losses:
        import torch

        inputs = labelled(batch).inputs
        then = self._then(batch)
        with recorded(network.backbone, self.layers) as now:
            fit = self.supervised(network(inputs), batch)
        gap = fit.new_zeros(())
        for number, (name, channels) in enumerate(self.layers):
            mine, theirs = (by_position(maps[number], channels, name).float() for maps in (now, then))
            attention = channel_attention(self._increase(number))
            power = behaviour_gap(torch.zeros_like(theirs), theirs, attention).clamp_min(1e-12)
            gap = gap + behaviour_gap(mine, theirs, attention) / power
        probed = self.own.get_submodule("start").get_submodule("head").get_parameter("weight")
        head = (network.head.get_parameter("weight") - probed).square().sum() / 2
        return {
            "total": fit + self.weight * gap + self.beta * head,
            "fit": fit.detach(),
            "gap": gap.detach(),
        }

    def _increase(self, number: int) -> Tensor:
        return self.own.get_buffer(f"increase{number}")

    def _then(self, batch: Batch) -> list[Tensor]:
        """The maps of the network as it was; from the first batches also what its channels are worth."""
        import torch

        start, seen = self.own.get_submodule("start").eval(), self.own.get_buffer("batches")
        inputs = labelled(batch).inputs
        learning = self.attention and int(seen) < ATTENTION_BATCHES
        backbone = start.get_submodule("backbone")
        with torch.set_grad_enabled(learning), recorded(backbone, self.layers, leaves=learning) as then:
            logits = start(inputs)
            if learning:
                found = removal_increase(self.supervised(logits, batch), then, self.layers)
                seen += 1
                for number, increase in enumerate(found):
                    self._increase(number).lerp_(increase, 1 / int(seen))
        return then


class Delta(NetworkTuner):
    """Fine-tune everything, while channels that matter for the new labels keep answering as they did.

    The pretrained network runs beside the tuned one: a third more work. Which channels matter is learned from the first
    batches, with the probed head.
    """

    card: ClassVar[Card] = Card(
        name="delta",
        summary="Fine-tune everything, held to the pretrained feature maps, important channels the most (DELTA)",
        reference="Li, Xiong, Wang, Rao, Liu & Huan 2019 (DELTA), section 3; weights of channels to first order",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    probed: ClassVar[bool] = True
    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "weight", "beta")

    weight: float = Field(1.0, ge=0, le=100, description="of the maps' relative squared change")
    beta: float = Field(0.01, ge=0, le=100, description="weight of the distance to the probed head")
    maps: int = Field(1, ge=1, le=16, description="feature maps that are held, from the last stage")
    attention: bool = Field(
        True, description="weigh channels by what the loss would grow by without them; no: all alike"
    )
    weight_decay: float = Field(0.0, ge=0, le=0.3, description="decoupled, towards zero; beside the rest")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> DeltaObjective:
        return DeltaObjective(
            self.smoothing,
            self.class_weights == "balanced",
            self.weight,
            self.beta,
            self.maps,
            self.attention,
        )


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Delta]
