"""Heads as modules: what turns the head's input x [n, d] into logits [n, K], by the kinds of `tlcore.values.Head`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlcore.values import Head

__all__ = ["LINEAR", "HeadLayer", "Neighbours", "UnitLinear", "head_layer", "shape_of"]

LINEAR = Head()
"""What a head is unless something else is said."""
TIE = 1e-6
"""Cosines that differ by less are equal: rounding must not part images that are equally near."""


class UnitLinear(nn.Linear):
    """W z + b, z = (x - centre) / |x - centre|, and 0 where x is the centre.

    centre: [d], a buffer: no gradient step moves it.
    """

    centre: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("centre", torch.zeros(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.normalize(x - self.centre, dim=1), self.weight, self.bias)


class Neighbours(nn.Module):
    """Log of the share of each class in the votes of the k stored directions nearest to x (Wu et al. 2018, section 3.4).

    With z = (x - centre) / |x - centre| and the cosines s_j = z . bank_j, the share of class k is

        (1 - floor) sum_j exp(s_j / T) votes_jk / sum_j exp(s_j / T) + floor / K,

    over the j whose cosine is among the k largest, all that are as near as the last of them included. There is no
    parameter, so that the softmax of the logits is the shares.

    bank: [m, d] of unit length. votes: [m, K], rows that sum to 1. centre: [d].
    """

    bank: Tensor
    votes: Tensor
    centre: Tensor

    def __init__(self, in_features: int, out_features: int, head: Head) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.neighbours, self.temperature, self.floor = head.neighbours, head.temperature, head.floor
        self.register_buffer("bank", torch.zeros(head.images, in_features))
        self.register_buffer("votes", torch.full((head.images, out_features), 1 / out_features))
        self.register_buffer("centre", torch.zeros(in_features))

    def forward(self, x: Tensor) -> Tensor:
        cosine = functional.normalize(x - self.centre, dim=1) @ self.bank.T
        nearest = cosine.topk(self.neighbours, dim=1).values
        weight = torch.exp((cosine - nearest[:, :1]) / self.temperature)
        weight = torch.where(cosine >= nearest[:, -1:] - TIE, weight, torch.zeros_like(weight))
        share = weight @ self.votes / weight.sum(1, keepdim=True)
        return torch.log((1 - self.floor) * share + self.floor / self.out_features)


HeadLayer = nn.Linear | Neighbours


def head_layer(in_features: int, out_features: int, head: Head) -> HeadLayer:
    """An unfitted head of the kind; a linear one draws its weights from torch's global random state."""
    if head.kind == "neighbours":
        return Neighbours(in_features, out_features, head)
    return (UnitLinear if head.kind == "unit" else nn.Linear)(in_features, out_features)


def shape_of(layer: HeadLayer) -> Head:
    """What `head_layer` needs to make a head like this one."""
    if isinstance(layer, Neighbours):
        return Head(
            kind="neighbours", images=len(layer.bank), neighbours=layer.neighbours, temperature=layer.temperature,
            floor=layer.floor,
        )  # fmt: skip
    return Head(kind="unit") if isinstance(layer, UnitLinear) else Head()
