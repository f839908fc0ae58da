"""One timm network as a function from images to features and source logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["FeatureGraph", "Prepared", "feature_graph"]

Logits = Literal["none", "linear", "whole"]


class FeatureGraph(nn.Module):
    """images [n, 3, H, W] -> (features [n, D],) or (features [n, D], logits [n, Z]).

    Features that are no vector (a network without pooling) are averaged over their positions.

    Args:
        network: timm network.
        logits: "none"; "linear": the classifier on the features; "whole": the head on the feature maps.
    """

    def __init__(self, network: nn.Module, logits: Logits) -> None:
        super().__init__()
        self.network: Any = network
        self.logits = logits

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.forward_features(images)
        features = self.network.forward_head(maps, pre_logits=True)
        vectors = _vectors(features, self.network)
        if self.logits == "none":
            return (vectors,)
        if self.logits == "linear":
            return vectors, self.network.get_classifier()(features)
        return vectors, self.network.forward_head(maps)

    def around(self, network: nn.Module) -> FeatureGraph:
        """The same graph around another form of the network."""
        return _graph(network, self.logits)


@dataclass(frozen=True)
class Prepared:
    """A graph made ready by an engine.

    Attributes:
        run: images [n, 3, H, W] -> what `FeatureGraph` gives, on the same device, in any floating type.
        dtype: of the images.
        channels_last: memory order of the images.
        batch: the only number of images that `run` takes; None: any.
        folded: batch norms that were folded into convolutions.
    """

    run: Callable[[Tensor], tuple[Tensor, ...]]
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    batch: int | None = None
    folded: int = 0


def feature_graph(network: nn.Module, example: Tensor, *, head: bool) -> FeatureGraph:
    """`network` in eval mode on the example's device, with the cheapest way to its source logits.

    The graph holds the network itself where that is in eval mode and on the device already, else a copy: nothing
    here or in the engines changes it.

    Most heads end in one linear layer on the features; the others (two heads, a convolution) run whole. Without
    pooling a head answers at every position: then there are no logits.
    """
    plain: Any = network
    places = {value.device for value in (*network.parameters(), *network.buffers())}
    if places - {example.device} or any(module.training for module in network.modules()):
        plain = copy.deepcopy(network).to(example.device).eval()
    if not head or getattr(plain, "num_classes", 0) <= 0:
        return _graph(plain, "none")
    with torch.no_grad():
        maps = plain.forward_features(example)
        features = plain.forward_head(maps, pre_logits=True)
        whole = plain.forward_head(maps)
        classifier = plain.get_classifier()
        if not isinstance(whole, Tensor) or whole.ndim != 2:
            return _graph(plain, "none")
        linear = isinstance(classifier, nn.Linear) and features.ndim == 2
        linear = linear and torch.allclose(classifier(features), whole, atol=1e-4)
    return _graph(plain, "linear" if linear else "whole")


def _graph(network: nn.Module, logits: Logits) -> FeatureGraph:
    graph = FeatureGraph(network, logits)
    graph.training = False  # of itself alone: the network is in eval mode
    return graph


def _vectors(features: Tensor, network: Any) -> Tensor:
    """[n, D]: feature maps [n, D, h, w] or [n, h, w, D] and tokens [n, T, D] are averaged over positions."""
    if features.ndim == 2:
        return features
    width = getattr(network, "num_features", None)
    channel = 1 if features.ndim == 4 and features.shape[-1] != width else features.ndim - 1
    return features.mean(dim=[axis for axis in range(1, features.ndim) if axis != channel])
