"""The network that is trained: a timm backbone, a bottleneck where a strategy wants one, and a head."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from tlcore.errors import PluginError
from tlcore.training.head_layers import LINEAR, HeadLayer, Neighbours, head_layer, shape_of
from tlcore.values import Bottleneck, Head, Preprocess, Task

if TYPE_CHECKING:
    from tlcore.training.plan import Solved

__all__ = ["Network", "bottleneck_module", "make_network"]


class Network(nn.Module):
    """Backbone, bottleneck and head. `features(x)` gives the head's input [n, d], `forward(x)` gives logits [n, K].

    `x` is float [n, 3, height, width], normalised; with an identity backbone it is the backbone's features
    [n, backbone_dim]. Without a bottleneck `bottleneck` is the identity and d = backbone_dim. Where labels are numbers
    the head learns (y - output_shift) / output_scale: the mean and the deviation of the training labels, once known.
    """

    head: HeadLayer
    output_scale: Tensor
    output_shift: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        backbone_dim: int,
        classes: int,
        bottleneck: Bottleneck | None = None,
        head: Head = LINEAR,
        task: Task = "classification",
    ) -> None:
        super().__init__()
        self.task: Task = task
        if task == "regression":
            self.register_buffer("output_scale", torch.ones(()))
            self.register_buffer("output_shift", torch.zeros(()))
        self.backbone = backbone
        self.bottleneck = nn.Identity() if bottleneck is None else bottleneck_module(backbone_dim, bottleneck)
        self.backbone_dim = backbone_dim
        self.head = head_layer(backbone_dim if bottleneck is None else bottleneck.width, classes, head)

    @property
    def feature_dim(self) -> int:
        """d: the width of the head's input."""
        return self.head.in_features

    @property
    def head_shape(self) -> Head:
        """The head's kind, as a checkpoint keeps it."""
        return shape_of(self.head)

    def embed(self, x: Tensor) -> Tensor:
        """The backbone's pooled features [n, backbone_dim]."""
        return cast(Tensor, self.backbone(x)).flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """The head's input [n, d], never in half precision, under autocast neither."""
        found = cast(Tensor, self.bottleneck(self.embed(x)))
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):  # logits keep their digits
            return self.logits(features)

    def logits(self, features: Tensor) -> Tensor:
        """[n, K] from the head's input; of numbers head(x) * output_scale + output_shift, in the unit of the labels."""
        found = cast(Tensor, self.head(features))
        if self.task == "regression":
            return found * self.output_scale + self.output_shift
        return found

    def on_features(self) -> Network:
        """This network without its backbone: the same bottleneck and head, fed with the backbone's features."""
        return self.on_backbone(nn.Identity())

    def on_backbone(self, backbone: nn.Module) -> Network:
        """The same bottleneck and head on another backbone: the rest of this one, fed with what comes before it."""
        rest = Network(backbone, self.backbone_dim, self.head.out_features, task=self.task)
        if self.task == "regression":
            rest.output_scale, rest.output_shift = self.output_scale, self.output_shift
        rest.bottleneck, rest.head = self.bottleneck, self.head
        return rest.train(self.training)

    def renew_head(self, bottleneck: Bottleneck) -> None:
        """Put a fresh bottleneck and a fresh linear head on the backbone, by torch's global random state."""
        device = self._device
        self.bottleneck = bottleneck_module(self.backbone_dim, bottleneck).to(device)
        self.head = nn.Linear(bottleneck.width, self.head.out_features).to(device)

    def put_head(self, head: Head) -> None:
        """Put an unfitted head of another kind in the place of this one: to load its tensors into."""
        self.head = head_layer(self.feature_dim, self.head.out_features, head).to(self._device)

    def set_head(self, solved: Solved, *, fit: str = "") -> None:
        """Put a solved head in the place of this one, whatever kind this one was. One for numbers is in the unit of the
        labels.

        Args:
            fit: the name of the head fit, for errors.

        Raises:
            PluginError: tensors that are missing, too many, of other shapes, not finite, or no votes.
        """
        whose = f'the head fit "{fit}"' if fit else "a head fit"
        made = _checked_layer(solved, self.feature_dim, self.head.out_features, whose)
        self.head = made.to(self._device).train(self.training)
        if self.task == "regression" and not isinstance(self.head, Neighbours):
            with torch.no_grad():  # what comes after the head is undone
                self.head.bias.sub_(self.output_shift).div_(self.output_scale)
                self.head.weight.div_(self.output_scale)

    @property
    def _device(self) -> torch.device:
        return next(chain(self.head.parameters(), self.head.buffers())).device


def _checked_layer(solved: Solved, width: int, classes: int, whose: str) -> HeadLayer:
    shape = solved.head
    if shape.kind == "neighbours" and not 1 <= shape.neighbours <= shape.images:
        raise PluginError(
            f"{whose} asks for {shape.neighbours} neighbours of {shape.images} stored directions"
        )
    with torch.random.fork_rng(devices=[]):  # the draw of a linear layer that is filled at once
        made = head_layer(width, classes, shape)
    state = made.state_dict()
    if set(solved.tensors) != set(state):
        raise PluginError(
            f"{whose} gave the tensors {', '.join(sorted(solved.tensors)) or 'none'} for a head of kind "
            f'"{shape.kind}"; it has {", ".join(sorted(state))}'
        )
    given = {name: np.asarray(value, dtype=np.float64) for name, value in solved.tensors.items()}
    for name, expected in state.items():
        value, wanted = given[name], tuple(expected.shape)
        if value.shape != wanted:
            raise PluginError(f"{whose} gave {name} {value.shape}; {wanted} expected")
        if not np.isfinite(value.astype(np.float32)).all():
            raise PluginError(f"{whose} gave {name} with values that are not finite in float32")
    if isinstance(made, Neighbours):
        votes, lengths = given["votes"], np.linalg.norm(given["bank"], axis=1)
        if votes.min(initial=0) < 0 or np.abs(votes.sum(1) - 1).max(initial=0) > 1e-4:
            raise PluginError(
                f"{whose} gave votes that are no shares: rows of numbers >= 0 that sum to 1 expected"
            )
        if lengths.max(initial=0) > 1 + 1e-4:
            raise PluginError(f"{whose} gave stored directions that are longer than 1")
    made.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in given.items()})
    return made


def bottleneck_module(backbone_dim: int, shape: Bottleneck) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout, initialised as in the public reference code of DANN, CDAN, MCC and MDD
    (weights normal with deviation 0.005, bias 0.1). Without the norm that would be nearly silent: torch's own
    initialisation then."""
    linear = nn.Linear(backbone_dim, shape.width)
    if not shape.norm:
        return nn.Sequential(linear, nn.ReLU(), nn.Dropout(shape.dropout))
    nn.init.normal_(linear.weight, std=0.005)
    nn.init.constant_(linear.bias, 0.1)
    return nn.Sequential(linear, nn.BatchNorm1d(shape.width), nn.ReLU(), nn.Dropout(shape.dropout))


def make_network(
    backbone: nn.Module,
    classes: int,
    *,
    preprocess: Preprocess,
    bottleneck: Bottleneck | None = None,
    head: Head = LINEAR,
    task: Task = "classification",
) -> Network:
    """A network on `backbone`. Without a bottleneck a linear head starts at zero weights.

    The feature width is measured with one blank image of the input size: timm's `num_features` is not
    the width before the head for every architecture (mobilenetv3 has a hidden layer after pooling). A
    zero head gives equal probabilities at the start and takes no draw from the seed.
    """
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        blank = torch.zeros(1, 3, preprocess.height, preprocess.width)
        backbone_dim = backbone(blank).flatten(1).shape[1]
    backbone.train(was_training)
    network = Network(backbone, int(backbone_dim), classes, bottleneck, head, task)
    if bottleneck is None and isinstance(network.head, nn.Linear):
        nn.init.zeros_(network.head.weight)
        nn.init.zeros_(network.head.bias)
    return network
