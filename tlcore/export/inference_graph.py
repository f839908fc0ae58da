"""The network as a deployed file holds it: pixels in, probabilities or numbers out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tlcore.values import Preprocess, Task

__all__ = ["InferenceGraph"]


class InferenceGraph(nn.Module):
    """uint8 RGB [n, height, width, 3] -> softmax(network((x / 255 - mean) / std) / T), float32 [n, K].

    Of numbers there is no softmax; of tags there is the sigmoid of each instead.

    Holds a float32 copy of `network` on the CPU in eval mode; the network itself is left as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        temperature: float = 1.0,
        task: Task = "classification",
    ) -> None:
        super().__init__()
        self.task = task
        self.temperature = temperature
        # contiguous: weights in channels_last would put transposes into the file
        self.network = (
            copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
        )
        self.network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.answers(self.normalised(image))

    def normalised(self, image: Tensor) -> Tensor:
        """float32 [n, 3, height, width]: (x / 255 - mean) / std."""
        scaled = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        return (scaled - self.mean) / self.std

    def answers(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.network(normalised)
        if self.task == "regression":
            return logits
        if self.temperature != 1:  # a division by 1 would stay in the file
            logits = logits / self.temperature
        return torch.sigmoid(logits) if self.task == "multi-label" else torch.softmax(logits, dim=-1)
