"""Objectives that several strategies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlcore.errors import PluginError
from tlcore.training.plan import Batch, Losses, Objective, Setup, View

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.protocols import TrainTask
    from tlcore.training.network import Network

__all__ = ["Paired", "Supervised", "both_domains", "labelled", "mean_entropy", "supervised_loss"]


class Supervised(Objective):
    """The loss that fits the labels of the source stream (`supervised_loss`), with label smoothing and class weights.

    balanced: class k counts n / (K n_k), its images together as much as those of any other (King & Zeng 2001,
    section 4.1); of tags a present one counts (n - n_k) / n_k, at most 100.
    """

    def __init__(self, smoothing: float = 0.0, *, balanced: bool = False) -> None:
        self.smoothing, self.balanced = smoothing, balanced
        self._task: TrainTask | None = None

    def setup(self, setup: Setup) -> nn.Module | None:
        self._task = setup.task
        return None

    def loss(self, network: Network, batch: Batch) -> Losses:
        return {"total": self.supervised(network(labelled(batch).inputs), batch)}

    def supervised(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean loss of logits [n, K] of the batch's images."""
        return supervised_loss(
            logits, labelled(batch), smoothing=self.smoothing, task=self._task, balanced=self.balanced
        )


def labelled(batch: Batch) -> View:
    """The source's part of the batch.

    Raises:
        PluginError: there is none, or it has no labels.
    """
    if batch.source is None or batch.source.labels is None:
        raise PluginError("the loss needs a labelled source stream")
    return batch.source


def supervised_loss(
    logits: Tensor,
    view: View,
    *,
    smoothing: float = 0.0,
    task: TrainTask | None = None,
    balanced: bool = False,
) -> Tensor:
    """Mean over images of the loss that fits their labels; of a mixed batch s loss(y) + (1 - s) loss(y of the others).

    Classes: cross-entropy with label smoothing e, targets (1 - e) y + e / K (Szegedy et al. 2016, section 7).
    Numbers: (output - y)^2 / (2 v), v being the variance of the training labels. Tags: the mean over tags of the
    binary cross-entropy, targets (1 - e) y + e / 2.

    Args:
        logits: float [n, K]; for numbers the outputs [n, 1] in the unit of the labels.
        task: None: classes without weights.
    """
    from torch.nn import functional

    labels = view.labels
    if labels is None:
        raise PluginError("the loss needs labelled images")
    kind = "classification" if task is None else task.task
    weights = _balance(task, logits) if balanced and task is not None else None

    def of(truth: Tensor) -> Tensor:
        if kind == "regression":
            assert task is not None
            return ((logits[:, 0] - truth) / task.target_std).square().mean() / 2
        if kind == "multi-label":
            soft = truth * (1 - smoothing) + smoothing / 2
            return functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights)
        # not divided by the batch's own sum of weights, which would take back what a rare class counts more
        return functional.cross_entropy(
            logits, truth, weight=weights, label_smoothing=smoothing, reduction="none"
        ).mean()

    if view.share is None or view.others is None:
        return of(labels)
    return view.share * of(labels) + (1 - view.share) * of(view.others)


def _balance(task: TrainTask, logits: Tensor) -> Tensor | None:
    """Weights of classes or of present tags; None where nobody counted them or labels are numbers."""
    if not task.counts or task.task == "regression":
        return None
    counts = logits.new_tensor(task.counts).clamp_min(1)
    if task.task == "multi-label":
        return ((task.source_train - counts) / counts).clamp(0.01, 100)
    return counts.sum() / (len(counts) * counts)


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
