"""Several processes that train one network, each on its share of every batch (`accelerate launch`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ALONE", "Processes", "launched", "usable_processors"]


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Processes:
    """Process `rank` of `count`. All take the same steps: each computes the gradient of its own images, and the mean
    over all images moves the parameters everywhere alike. Layers that look at the whole batch (batch norm in
    training) see the share of their own process alone."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """The number of this process on its machine: the accelerator that it uses."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, images: int) -> slice:
        """The positions of this process in a batch."""
        bounds = np.linspace(0, images, self.count + 1).round().astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def taken(self, images: int) -> int:
        """How many of a batch are this process's."""
        part = self.part(images)
        return int(part.stop - part.start)

    def average(self, parameters: Sequence[nn.Parameter], weight: float) -> None:
        """The gradients of all processes, put together: mean of weight x gradient, in place, in one message."""
        if self.count == 1:
            return
        import torch
        from accelerate.utils import reduce

        held = [value for value in parameters if value.requires_grad]
        flat = torch.cat(
            [(value.grad if value.grad is not None else torch.zeros_like(value)).flatten() for value in held]
        )
        summed: Tensor = reduce(flat * weight, reduction="mean")
        start = 0
        for value in held:
            value.grad = summed[start : start + value.numel()].view_as(value).clone()
            start += value.numel()

    def agree(self, module: nn.Module) -> None:
        """The first one's weights for all."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        for value in module.state_dict().values():
            value.copy_(broadcast(value.contiguous(), from_process=0))

    def agree_on(self, value: float) -> float:
        """The first one's number for all: clocks differ."""
        if self.count == 1:
            return value
        import torch
        from accelerate import PartialState
        from accelerate.utils import broadcast

        told = torch.tensor([value], dtype=torch.float64, device=PartialState().device)
        return float(broadcast(told, from_process=0).item())

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


ALONE = Processes()


def launched() -> Processes:
    """This process among those that `accelerate launch` started; alone where it was not."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "false").lower() in {"1", "true", "yes"})
    return Processes(state.process_index, state.num_processes, state.local_process_index)
