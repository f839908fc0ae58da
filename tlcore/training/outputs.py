"""From logits to what a network answers: probabilities of classes, numbers, or probabilities of tags."""

from __future__ import annotations

import torch
from torch import Tensor

from tlcore.values import Task

__all__ = ["outputs"]


def outputs(logits: Tensor, task: Task) -> Tensor:
    """float32 [n, K] from logits [n, K].

    Classes: softmax, rows sum to 1. Numbers: as they are, in the unit of the labels. Tags: the sigmoid of each.
    """
    if task == "regression":
        return logits.float()
    if task == "multi-label":
        return torch.sigmoid(logits.float())
    return torch.softmax(logits.float(), dim=1)
