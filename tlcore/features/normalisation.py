"""The one normalisation: from pixels to what a network takes."""

from __future__ import annotations

import torch
from torch import Tensor

from tlcore.values import Preprocess

__all__ = ["normalise"]


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(x / 255 - mean) / std of [n, H, W, 3] in 0 … 255, as float32 [n, 3, H, W] in channels_last order."""
    # Permuting NHWC gives NCHW in the channels_last memory format without a copy.
    x = pixels.permute(0, 3, 1, 2)
    mean = torch.tensor(preprocess.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=x.device).view(1, 3, 1, 1)
    return x.float().div(255).sub_(mean).div_(std)
