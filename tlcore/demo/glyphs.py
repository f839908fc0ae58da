"""Small images that need no download: glyphs of the fonts that come with matplotlib, shapes, textures.

All are bright on black, grayscale, 32 x 32, uint8 [n, 32, 32], and the same for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlcore.errors import UserError

__all__ = ["DIGITS", "LETTERS", "SIDE", "Distortion", "distort", "font_files", "glyphs", "render_glyph"]

SIDE = 32
"""Pixels of an image's side."""

CANVAS = 64
"""Pixels of the side on which glyphs are drawn before they are distorted."""

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

SYMBOL_FONTS = ("LastResort", "cmex", "cmsy")
"""Fonts that claim to have the letters and draw other signs in their place."""


@dataclass(frozen=True)
class Distortion:
    """How far images are bent. All at 0: the glyph as the font draws it.

    Attributes:
        rotation: standard deviation, degrees.
        shear: standard deviation, as a ratio.
        scale: standard deviation of the logarithm of each axis' size.
        shift: standard deviation, share of the side.
        bend: standard deviation of a smooth displacement field (4 x 4 knots), share of the side.
        thickness: share of images whose strokes are made thinner or thicker.
        coarse: share of images that are scaled down to 8 … 16 pixels and up again, as a coarse scanner would.
        noise: largest standard deviation of the pixel noise, in [0, 1].
        contrast: how much of the brightness may be missing, in [0, 1].
    """

    rotation: float = 8.0
    shear: float = 0.15
    scale: float = 0.12
    shift: float = 0.03
    bend: float = 0.03
    thickness: float = 0.7
    coarse: float = 0.5
    noise: float = 0.06
    contrast: float = 0.3


def font_files(characters: str = DIGITS) -> tuple[Path, ...]:
    """The fonts shipped with matplotlib that draw every one of `characters`, sorted by name.

    Raises:
        UserError: none does.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = []
    for path in sorted(folder.glob("*.ttf")):
        if path.name.startswith(SYMBOL_FONTS):
            continue
        drawn = FT2Font(str(path)).get_charmap()
        if all(ord(character) in drawn for character in characters):
            fonts.append(path)
    if not fonts:
        raise UserError(
            f'no font draws all of "{characters}"', where=str(folder), hint="install matplotlib again"
        )
    return tuple(fonts)


@lru_cache(maxsize=4096)
def render_glyph(font: Path, character: str) -> NDArray[np.uint8]:
    """One character, undistorted, 255 on 0, [64, 64]: its ink fills 80 % of the height (or width, when wider)."""
    from PIL import Image, ImageDraw, ImageFont

    face = ImageFont.truetype(str(font), 96)
    left, top, right, bottom = face.getbbox(character)
    ink = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=face)
    ratio = 0.8 * CANVAS / max(ink.size)
    size = (max(1, round(ink.width * ratio)), max(1, round(ink.height * ratio)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(
        ink.resize(size, Image.Resampling.LANCZOS), ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2)
    )
    return np.asarray(canvas)


def glyphs(
    characters: str, per_class: int, *, seed: int, distortion: Distortion | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Distorted characters in randomly drawn fonts.

    Returns:
        uint8 [n, 32, 32] and int64 [n], n = len(characters) * per_class; the label is the position in `characters`.
        Images of one class stand together.
    """
    generator = np.random.default_rng(seed)
    fonts = font_files(characters)
    labels = np.repeat(np.arange(len(characters)), per_class)
    drawn = generator.integers(len(fonts), size=len(labels))
    canvases = np.stack(
        [render_glyph(fonts[font], characters[label]) for font, label in zip(drawn, labels, strict=True)]
    )
    return distort(canvases, seed=int(generator.integers(2**62)), distortion=distortion), labels


def distort(
    canvases: NDArray[np.uint8], *, seed: int, distortion: Distortion | None = None
) -> NDArray[np.uint8]:
    """Random affine map, bend, stroke width, coarse scanning, noise and contrast, each image its own.

    Args:
        canvases: uint8 [n, 64, 64].

    Returns:
        uint8 [n, 32, 32].
    """
    how = distortion or Distortion()
    rng = torch.Generator().manual_seed(seed)
    parts = torch.split(torch.tensor(canvases), 1024)
    return np.concatenate([_distort(part, how, rng) for part in parts])


def _distort(canvases: Tensor, how: Distortion, rng: torch.Generator) -> NDArray[np.uint8]:
    n = len(canvases)
    images = canvases[:, None].float() / 255
    images = _stroke(images, how.thickness, rng)
    grid = functional.affine_grid(_affine(n, how, rng), [n, 1, SIDE, SIDE], align_corners=False)
    knots = torch.randn(n, 2, 4, 4, generator=rng) * 2 * how.bend
    bend = functional.interpolate(knots, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    # Sampling 64 pixels at 32 places would alias thin strokes: average neighbours first.
    smooth = functional.avg_pool2d(images, 3, stride=1, padding=1)
    images = functional.grid_sample(smooth, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    images = _coarse(images, how.coarse, rng)
    bright = 1 - how.contrast * torch.rand(n, 1, 1, 1, generator=rng)
    noise = torch.randn(images.shape, generator=rng) * how.noise * torch.rand(n, 1, 1, 1, generator=rng)
    # Scans are black where there is no ink: noise only where there is some.
    images = images * bright + noise * (images > 0.02)
    return np.asarray((images.clamp(0, 1) * 255).round().to(torch.uint8)[:, 0].numpy())


def _affine(n: int, how: Distortion, rng: torch.Generator) -> Tensor:
    """[n, 2, 3], from output to input coordinates."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    angle = normal(n) * how.rotation * torch.pi / 180
    cos, sin, shear = angle.cos(), angle.sin(), normal(n) * how.shear
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    slant = torch.eye(2).repeat(n, 1, 1)
    slant[:, 0, 1] = shear
    size = torch.diag_embed((normal(n, 2) * how.scale).exp())
    shift = normal(n, 2, 1) * 2 * how.shift
    return torch.cat([rotation @ slant @ size, shift], -1)


def _stroke(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Thinner (minimum filter) or thicker (maximum filter) strokes, by 1 to 3 canvas pixels on each side.

    Strokes that would lose more than half of their ink stay as they are.
    """
    kind = torch.randint(0, 4, (len(images),), generator=rng)
    touched = torch.rand(len(images), generator=rng) < share
    out = images.clone()
    for number, (side, sign) in enumerate(((3, -1), (3, 1), (5, 1), (7, 1))):
        chosen = touched & (kind == number)
        if chosen.any():
            out[chosen] = sign * functional.max_pool2d(
                sign * images[chosen], side, stride=1, padding=side // 2
            )
    faint = out.sum((1, 2, 3)) < 0.5 * images.sum((1, 2, 3))
    out[faint] = images[faint]
    return out


def _coarse(
    images: Tensor, share: float, rng: torch.Generator, sides: Sequence[int] = (8, 10, 12, 16)
) -> Tensor:
    kind = torch.randint(0, len(sides), (len(images),), generator=rng)
    touched = torch.rand(len(images), generator=rng) < share
    out = images.clone()
    for number, side in enumerate(sides):
        chosen = touched & (kind == number)
        if chosen.any():
            small = functional.interpolate(images[chosen], size=(side, side), mode="area")
            out[chosen] = functional.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return out
