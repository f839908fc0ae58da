"""The gradient reversal layer."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["reversal_strength", "reverse_gradient"]


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """x unchanged; its gradient times -strength (Ganin & Lempitsky 2015, eq. 9 and 10)."""
    return cast(Tensor, _Reverse.apply(x, strength))


def reversal_strength(progress: float, *, peak: float = 1.0, gamma: float = 10.0) -> float:
    """peak * (2 / (1 + exp(-gamma * progress)) - 1) (Ganin et al. 2016, section 5.2.2)."""
    return peak * (2 / (1 + math.exp(-gamma * progress)) - 1)
