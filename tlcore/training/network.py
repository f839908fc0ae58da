"""The network that is trained: a timm backbone, a bottleneck where an adapter wants one, and a linear head."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tlcore.values import Bottleneck, Preprocess

__all__ = ["Network", "bottleneck_module", "make_network"]


class Network(nn.Module):
    """Backbone, bottleneck and head. `features(x)` gives the head's input [n, d], `forward(x)` gives logits [n, K].

    `x` is float [n, 3, height, width], normalised; with an identity backbone it is the backbone's features
    [n, backbone_dim]. Without a bottleneck `bottleneck` is the identity and d = backbone_dim.
    """

    def __init__(
        self, backbone: nn.Module, backbone_dim: int, classes: int, bottleneck: Bottleneck | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.bottleneck = nn.Identity() if bottleneck is None else bottleneck_module(backbone_dim, bottleneck)
        self.backbone_dim = backbone_dim
        self.head = nn.Linear(backbone_dim if bottleneck is None else bottleneck.width, classes)

    @property
    def feature_dim(self) -> int:
        """d: the width of the head's input."""
        return self.head.in_features

    def embed(self, x: Tensor) -> Tensor:
        """The backbone's pooled features [n, backbone_dim]."""
        return cast(Tensor, self.backbone(x)).flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """The head's input [n, d]."""
        return cast(Tensor, self.bottleneck(self.embed(x)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))

    def on_features(self) -> Network:
        """This network without its backbone: the same bottleneck and head, fed with the backbone's features."""
        rest = Network(nn.Identity(), self.backbone_dim, self.head.out_features)
        rest.bottleneck, rest.head = self.bottleneck, self.head
        return rest.train(self.training)

    def renew_head(self, bottleneck: Bottleneck) -> None:
        """Put a fresh bottleneck and a fresh head on the backbone, by torch's global random state."""
        device = self.head.weight.device
        self.bottleneck = bottleneck_module(self.backbone_dim, bottleneck).to(device)
        self.head = nn.Linear(bottleneck.width, self.head.out_features).to(device)


def bottleneck_module(backbone_dim: int, shape: Bottleneck) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout, initialised as in the public reference code of DANN, CDAN, MCC and MDD
    (weights normal with deviation 0.005, bias 0.1)."""
    linear = nn.Linear(backbone_dim, shape.width)
    nn.init.normal_(linear.weight, std=0.005)
    nn.init.constant_(linear.bias, 0.1)
    return nn.Sequential(linear, nn.BatchNorm1d(shape.width), nn.ReLU(), nn.Dropout(shape.dropout))


def make_network(
    backbone: nn.Module, classes: int, *, preprocess: Preprocess, bottleneck: Bottleneck | None = None
) -> Network:
    """A network on `backbone`. Without a bottleneck its head starts at zero weights.

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
    network = Network(backbone, int(backbone_dim), classes, bottleneck)
    if bottleneck is None:
        nn.init.zeros_(network.head.weight)
        nn.init.zeros_(network.head.bias)
    return network
