"""Small pictures that travel inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["SIDE", "picture", "thumbnail"]

SIDE = 176
"""Pixels of the longer side: sharp at twice the shown size."""
_MAX_PIXELS = 100_000_000  # above this a file is not decoded, whatever it claims to be
_WIDE = {"I;16", "I;16B", "I;16L", "I", "F"}


def thumbnail(uri: str, *, side: int = SIDE) -> str | None:
    """`picture` as a JPEG data URI."""
    found = picture(uri, side=side)
    if found is None:
        return None
    data = io.BytesIO()
    found.save(data, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def picture(uri: str, *, side: int = SIDE) -> Image.Image | None:
    """The image at path `uri` in RGB, its longer side `side` pixels, or None where there is none to be shown.

    Missing, damaged and oversized files are None: a card is made of what is still there. Images smaller than
    `side` are enlarged without smoothing, so that one sees the pixels that the network saw.
    """
    try:
        with Image.open(Path(uri)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (side * 2, side * 2))
            return _fitted(image, side)
    except Exception:  # noqa: BLE001 - Pillow's decoders raise many kinds on damaged files
        return None


def _fitted(image: Image.Image, side: int) -> Image.Image:
    shown = ImageOps.exif_transpose(image)
    if shown.mode in _WIDE:
        values = np.asarray(shown, dtype=np.float32)
        low, span = values.min(), np.ptp(values) or 1.0
        shown = Image.fromarray(((values - low) * (255 / span)).astype(np.uint8))
    if shown.has_transparency_data:
        white = Image.new("RGBA", shown.size, "white")
        shown = Image.alpha_composite(white, shown.convert("RGBA"))
    shown = shown.convert("RGB")
    scale = side / max(shown.size)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    return shown.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
