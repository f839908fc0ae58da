"""Augmentation of whole batches on tensors, drawn from a generator that the host seeds per step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tlcore.training.plan import Augment

__all__ = ["augment"]

# Half-widths of the uniform draws: shift (share of the side), scale, rotation (radians), brightness, contrast.
_STRENGTH: dict[Augment, tuple[float, float, float, float, float]] = {
    "light": (0.08, 0.12, math.radians(8), 0.1, 0.15),
    "flip": (0.08, 0.12, math.radians(8), 0.1, 0.15),
    "strong": (0.15, 0.30, math.radians(25), 0.3, 0.45),
}


def augment(pixels: Tensor, kind: Augment, generator: torch.Generator, part: slice | None = None) -> Tensor:
    """Random shift, scale, rotation, brightness and contrast per image; "flip" mirrors half of them as well.

    "light" keeps what a label may depend on: no mirror image, so that digits and letters stay themselves.
    "strong" doubles the ranges and blanks a square of a quarter of the side (Cutout, DeVries & Taylor 2017).

    Args:
        pixels: uint8 [n, H, W, 3].
        part: of the n images, those that are wanted; they come out as they do among all n. None: all.

    Returns:
        float32 [n (or of the part), H, W, 3] in [0, 255]; outside of a moved image its edge is repeated.
    """
    count, part = len(pixels), part or slice(None)
    images = pixels[part].permute(0, 3, 1, 2).float()
    if kind == "none":
        return images.permute(0, 2, 3, 1)
    own, _, height, width = images.shape
    shift, scale, turn, brightness, contrast = _STRENGTH[kind]

    def draw(half_width: float) -> Tensor:
        return ((torch.rand(count, generator=generator) * 2 - 1) * half_width)[part]

    zoom = torch.exp(draw(scale))
    angle = draw(turn)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    mirror = (
        (torch.rand(count, generator=generator)[part] < 0.5).float() * -2 + 1
        if kind == "flip"
        else torch.ones(own)
    )
    ratio = height / width
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine * ratio, draw(2 * shift)], 1),
            torch.stack([sine * mirror / ratio, cosine, draw(2 * shift)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [own, 3, height, width], align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mean = images.mean((1, 2, 3), keepdim=True)
    gain = (1 + draw(contrast)).view(-1, 1, 1, 1)
    offset = (255 * draw(brightness)).view(-1, 1, 1, 1)
    images = ((images - mean) * gain + mean + offset).clamp_(0, 255)
    if kind == "strong":
        side_y, side_x = max(1, height // 4), max(1, width // 4)
        top = torch.randint(0, height - side_y + 1, (count,), generator=generator)[part].view(-1, 1, 1, 1)
        left = torch.randint(0, width - side_x + 1, (count,), generator=generator)[part].view(-1, 1, 1, 1)
        rows = torch.arange(height).view(1, 1, -1, 1)
        columns = torch.arange(width).view(1, 1, 1, -1)
        hole = (rows >= top) & (rows < top + side_y) & (columns >= left) & (columns < left + side_x)
        images = torch.where(hole, mean, images)
    return images.permute(0, 2, 3, 1)
