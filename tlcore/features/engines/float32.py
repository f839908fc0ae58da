"""The network as it is, and with its batch norms folded: float32 by torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tlcore.features.engines.graph import FeatureGraph, Prepared
from tlcore.features.folding import folded

__all__ = ["eager", "fold"]


def eager(graph: FeatureGraph) -> Prepared:
    """The graph itself."""

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs: tuple[Tensor, ...] = graph(images)
        return outputs

    return Prepared(run)


def fold(graph: FeatureGraph, example: Tensor) -> tuple[FeatureGraph, int]:
    """A copy in channels_last with batch norms folded, and how many were. See tlcore.features.folding."""
    network, count = folded(graph.network, example[:1])
    return graph.around(network.to(memory_format=torch.channels_last)), count
