"""One gradient step: loss, gradient, clipping, sharpness, and whether training still goes well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlcore.errors import PluginError
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Losses, Phase
from tlcore.training.processes import Processes

__all__ = ["DIVERGED", "Diverged", "GradientStep", "finite"]

DIVERGED = 100.0
"""A loss so many times the first one of its phase (or 1, where that is smaller) means that training has diverged."""

Loss = Callable[[Network, Batch], Losses]


class Diverged(Exception):
    """What was seen, in one phrase."""


class GradientStep:
    """The steps of one move: `loss` over `network` by `optimizer`."""

    def __init__(
        self, phase: Phase, name: str, loss: Loss, network: Network, optimizer: torch.optim.Optimizer,
        processes: Processes, autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:  # fmt: skip
        self.phase, self.name, self.loss, self.network = phase, name, loss, network
        self.optimizer, self.processes, self.autocast = optimizer, processes, autocast
        self.own = [value for group in optimizer.param_groups for value in group["params"]]

    def __call__(
        self, batch: Batch, rate: float, weight: float, first_loss: float | None, again: Callable[[], None]
    ) -> Mapping[str, Tensor]:
        """One step; the named losses before it.

        rate: share of the peak learning rates. weight: of this process's images. again: puts the random state back to
        where the step began, for steps that look twice.

        Raises:
            Diverged: a loss or a gradient is not finite, or the loss has left all bounds.
        """
        losses = self._losses(batch)
        total = losses["total"]
        value = total.item()
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value}")
        if first_loss is not None and abs(value) > DIVERGED * max(1.0, abs(first_loss)):
            raise Diverged(f"the loss has grown from {first_loss:.3g} to {value:.3g}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self._differentiate(total, weight)
        if self.phase.sam is not None:
            self._sharpen(batch, weight, self.phase.sam, again)
        if self.phase.clip_norm is not None:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.own if p.grad is not None])
            if not torch.isfinite(norm):
                raise Diverged(f"the gradient's norm is {norm.item()}")
            if norm > self.phase.clip_norm:  # mostly it is not, and clip_grad_norm_ would multiply by one
                torch.nn.utils.clip_grads_with_norm_(self.own, self.phase.clip_norm, norm)
        self.optimizer.step()
        return losses

    def _losses(self, batch: Batch) -> Losses:
        with self.autocast():
            losses = self.loss(self.network, batch)
        if "total" not in losses:
            raise PluginError(
                f'the loss "{self.name}" of phase "{self.phase.name}" names no "total"; it has: {", ".join(losses)}'
            )
        return losses

    def _differentiate(self, total: Tensor, weight: float) -> None:
        total.backward()  # type: ignore[no-untyped-call]
        self.processes.average(self.own, weight)

    def _sharpen(self, batch: Batch, weight: float, radius: float, again: Callable[[], None]) -> None:
        """The gradient at w + rho g / |g| in the place of the one at w (Foret et al. 2021, equation 3)."""
        held = [value for value in self.own if value.grad is not None]
        gradients = [value.grad for value in held if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm) or norm == 0:
            return  # the caller sees it, or nothing moves
        uphill = [gradient * (radius / norm) for gradient in gradients]
        with torch.no_grad():
            torch._foreach_add_(held, uphill)
        for value in held:
            value.grad = None
        again()
        with statistics_at_rest(self.network):
            total = self._losses(batch)["total"]
            self._differentiate(total, weight)
        with torch.no_grad():
            torch._foreach_sub_(held, uphill)


@contextmanager
def statistics_at_rest(network: nn.Module) -> Iterator[None]:
    """Batch norm normalises by its batch and leaves its running statistics as they are."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def finite(named: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as numbers.

    Raises:
        Diverged: one is not finite.
    """
    values = {name: float(value) for name, value in named.items()}
    wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
    if wrong is not None:
        raise Diverged(f'"{wrong}" is {values[wrong]}')
    return values
