"""Objectives that several strategies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcore.errors import PluginError
from tlcore.training.plan import Batch, Losses, Objective

if TYPE_CHECKING:
    from tlcore.training.network import Network

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """Cross-entropy on the source stream, with label smoothing (Szegedy et al. 2016, section 7)."""

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def loss(self, network: Network, batch: Batch) -> Losses:
        from torch.nn import functional

        if batch.source is None or batch.source.labels is None:
            raise PluginError("cross-entropy needs a labelled source stream")
        logits = network(batch.source.inputs)
        return {
            "total": functional.cross_entropy(logits, batch.source.labels, label_smoothing=self.smoothing)
        }
