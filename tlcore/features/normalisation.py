"""The one normalisation: from pixels to what a network takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcore.values import Preprocess

__all__ = ["normalise", "normalised_rows"]

_TOGETHER = 4
"""Images that are converted together: their float32 values stay in the second-level cache."""


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(x / 255 - mean) / std of [n, H, W, 3] in 0 … 255, as float32 [n, 3, H, W] in channels_last order."""
    # Permuting NHWC gives NCHW in the channels_last memory format without a copy.
    x = pixels.permute(0, 3, 1, 2)
    mean = torch.tensor(preprocess.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=x.device).view(1, 3, 1, 1)
    return x.float().div(255).sub_(mean).div_(std)


def normalised_rows(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocess: Preprocess,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    device: str | torch.device = "cpu",
) -> Tensor:
    """What `normalise` gives of `pixels[rows]`, in one pass and in the type and order that a network takes.

    The same values but for the last bit (x * scale + shift, in float32, then rounded to `dtype`). Measured on one
    core at 224 px: 0.05 to 0.09 ms an image, where `normalise` and a conversion take 0.7 to 0.9.

    Args:
        pixels: uint8 [n, H, W, 3]; of a memory map only `rows` are read, a few at a time.
        channels_last: memory order of the answer [rows, 3, H, W]; False: contiguous.
    """
    if torch.device(device).type != "cpu":
        batch = normalise(torch.from_numpy(np.array(pixels[rows])).to(device), preprocess)
        order = torch.channels_last if channels_last else torch.contiguous_format
        return batch.to(dtype=dtype, memory_format=order)
    height, width = preprocess.height, preprocess.width
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    # A whole row of an image at a time: torch is slow where the last dimension has 3 elements.
    scale = torch.from_numpy(np.tile(1 / (255 * std), width).astype(np.float32))
    shift = torch.from_numpy(np.tile(-mean / std, width).astype(np.float32))
    shape = (height, width, 3) if channels_last else (3, height, width)
    out = torch.empty((len(rows), *shape), dtype=dtype)
    buffer = torch.empty((_TOGETHER, height, width * 3))
    for start in range(0, len(rows), _TOGETHER):
        found = torch.from_numpy(np.array(pixels[rows[start : start + _TOGETHER]]))
        part = buffer[: len(found)]
        part.copy_(found.view(len(found), height, width * 3))
        torch.addcmul(shift, part, scale, out=part)
        image = part.view(len(found), height, width, 3)
        out[start : start + _TOGETHER] = image if channels_last else image.permute(0, 3, 1, 2)
    return out.permute(0, 3, 1, 2) if channels_last else out
