"""Small pictures that travel inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["SIDE", "thumbnail"]

SIDE = 176
"""Pixels of the longer side: sharp at twice the shown size."""
_MAX_PIXELS = 100_000_000  # above this a file is not decoded, whatever it claims to be
_WIDE = {"I;16", "I;16B", "I;16L", "I", "F"}


def thumbnail(uri: str, *, side: int = SIDE) -> str | None:
    """A JPEG data URI of the image at path `uri`, or None where there is none to be shown.

    Missing, damaged and oversized files are None: a card is made of what is still there. Images smaller than
    `side` are enlarged without smoothing, so that one sees the pixels that the network saw.
    """
    try:
        with Image.open(Path(uri)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (side * 2, side * 2))
            return _encoded(image, side)
    except Exception:  # noqa: BLE001 - Pillow's decoders raise many kinds on damaged files
        return None


def _encoded(image: Image.Image, side: int) -> str:
    picture = ImageOps.exif_transpose(image)
    if picture.mode in _WIDE:
        values = np.asarray(picture, dtype=np.float32)
        low, span = values.min(), np.ptp(values) or 1.0
        picture = Image.fromarray(((values - low) * (255 / span)).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = picture.convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
