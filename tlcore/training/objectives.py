"""Objectives that several strategies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlcore.errors import PluginError
from tlcore.training.plan import Batch, Losses, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network

__all__ = ["CrossEntropy", "Paired", "both_domains", "mean_entropy"]


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


@dataclass(frozen=True)
class Paired:
    """One batch of both domains through the network.

    features: [n, d] and [m, d], the head's inputs; logits: [n, K] and [m, K]; labels: int64 [n].
    supervised: the source's mean cross-entropy.
    """

    source_features: Tensor
    target_features: Tensor
    source_logits: Tensor
    target_logits: Tensor
    labels: Tensor
    supervised: Tensor


def both_domains(network: Network, batch: Batch, method: str) -> Paired:
    """Source and target in one pass, so that batch norm sees the mixture that it will meet.

    Raises:
        PluginError: the batch lacks labelled source or target images; `method` is named.
    """
    import torch
    from torch.nn import functional

    if batch.source is None or batch.source.labels is None or batch.target is None:
        raise PluginError(f"{method} needs a labelled source stream and a target stream")
    features = network.features(torch.cat([batch.source.inputs, batch.target.inputs]))
    logits = network.head(features)
    count = len(batch.source.inputs)
    return Paired(
        features[:count], features[count:], logits[:count], logits[count:], batch.source.labels,
        functional.cross_entropy(logits[:count], batch.source.labels),
    )  # fmt: skip


def mean_entropy(logits: Tensor) -> Tensor:
    """-1/n sum_i sum_k p_ik log p_ik of the softmax p of logits [n, K], in nats (Grandvalet & Bengio 2004)."""
    import torch

    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(1).mean()
