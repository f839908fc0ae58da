"""The game of the adversarial adapters: a discriminator of domains, and its loss behind a gradient reversal.

Cheap to import: strategies use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["DomainGame", "discriminator", "domain_game", "domain_loss"]


def discriminator(width: int, hidden: int) -> nn.Sequential:
    """Layer norm, two hidden layers with ReLU, one logit: above 0 says source.

    The layer norm is not in the papers. Features that grow without bound would otherwise be the cheapest move
    of either player; it leaves the game their direction alone.
    """
    from torch import nn

    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, 1),
    )  # fmt: skip


def domain_loss(
    source: Tensor, target: Tensor, source_weights: Tensor | None = None, target_weights: Tensor | None = None
) -> Tensor:
    """Mean of the two domains' binary cross-entropies, source = 1, target = 0 (Ganin et al. 2016, eq. 8).

    source: logits [n, 1]; target: logits [m, 1]; weights: [n] and [m], above 0, of the images within their own
    domain. Each domain weighs one half whatever its share of the batch, and whatever the sum of its weights.
    """
    from torch.nn import functional

    halves = (
        (functional.softplus(-source).flatten(), source_weights),
        (functional.softplus(target).flatten(), target_weights),
    )
    means = [loss.mean() if w is None else (w * loss).sum() / w.sum() for loss, w in halves]
    return (means[0] + means[1]) / 2


class DomainGame(NamedTuple):
    """One round. loss: to be minimised; accuracy: of the discriminator, each domain one half, no gradient."""

    loss: Tensor
    accuracy: Tensor


def domain_game(
    judge: nn.Module,
    source: Tensor,
    target: Tensor,
    progress: float,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
) -> DomainGame:
    """The domain loss of `judge` on source [n, d] and target [m, d], behind a gradient reversal.

    The judge descends on the loss; the reversal, whose strength grows with progress in [0, 1), makes what lies
    below source and target ascend on it. One optimiser step therefore plays both sides.
    """
    import torch

    from tlcore.training.reversal import reversal_strength, reverse_gradient

    both = reverse_gradient(torch.cat([source, target]), reversal_strength(progress))
    says_source, says_target = judge(both).split([len(source), len(target)])
    correct = (says_source > 0).float().mean() + (says_target <= 0).float().mean()
    return DomainGame(
        domain_loss(says_source, says_target, source_weights, target_weights), correct.detach() / 2
    )
