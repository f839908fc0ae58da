"""The network that is trained: a timm backbone and a linear head, kept apart."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tlcore.values import Preprocess

__all__ = ["Network", "make_network"]


class Network(nn.Module):
    """Backbone and head. `backbone(x)` gives features [n, d], `forward(x)` gives logits [n, K].

    `x` is float [n, 3, height, width], normalised; with an identity backbone it is features [n, d].
    """

    def __init__(self, backbone: nn.Module, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(feature_dim, classes)

    @property
    def feature_dim(self) -> int:
        return self.head.in_features

    def features(self, x: Tensor) -> Tensor:
        """Pooled features [n, d], the head's input."""
        return cast(Tensor, self.backbone(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))


def make_network(backbone: nn.Module, classes: int, *, preprocess: Preprocess) -> Network:
    """A network on `backbone`, whose head starts at zero weights.

    The feature width is measured with one blank image of the input size: timm's `num_features` is not
    the width before the head for every architecture (mobilenetv3 has a hidden layer after pooling). A
    zero head gives equal probabilities at the start and takes no draw from the seed.
    """
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        blank = torch.zeros(1, 3, preprocess.height, preprocess.width)
        feature_dim = backbone(blank).flatten(1).shape[1]
    backbone.train(was_training)
    network = Network(backbone, int(feature_dim), classes)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    return network
