"""From a file to an upright RGB image, or to a short reason why not."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

# Imported for their registration: Pillow would otherwise load every plug-in it has at the first odd file.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from tlcore.errors import UserError

__all__ = [
    "IMAGE_SUFFIXES", "MAX_PIXELS", "BadImage", "ImageFacts", "inspect", "open_rgb", "opened", "rgb",
]  # fmt: skip

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        BmpImagePlugin.BmpImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
"""Pillow's names of the formats that are read. No other decoder ever sees a file."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
"""Endings (lower case) by which a folder's images are recognised."""

MAX_PIXELS = 100_000_000
"""Default bound on width x height."""

_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_NO_RANGE = {"I", "F"}
Kind = Literal["missing", "empty", "not-an-image", "truncated", "too-large", "unreadable"]


class BadImage(UserError):
    """A file that does not become pixels.

    Attributes:
        kind: what is wrong, as a code.
        reason: what is wrong, in a few words.
    """

    def __init__(self, path: str | Path, kind: Kind, reason: str) -> None:
        self.kind: Kind = kind
        self.reason = reason
        super().__init__(reason, where=str(path))


@dataclass(frozen=True)
class ImageFacts:
    """What a file's header says. width and height: pixels, before the EXIF orientation."""

    width: int
    height: int
    mode: str
    format: str


def open_rgb(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image upright (EXIF orientation applied) and in RGB, 8 bits a channel.

    Alpha is dropped, not blended, as torchvision and timm do; 16-bit grey values are divided by 257
    (Pillow's own conversion would clip them at 255); of an animation the first frame counts.

    Raises:
        BadImage: missing, empty, not an image, truncated, more than max_pixels, or otherwise unreadable.
    """
    with opened(path, max_pixels) as image:
        image.load()
        return rgb(_upright(image))


def inspect(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Read the whole file and tell its size, mode and format: what passes here passes `open_rgb`.

    A JPEG is decoded at an eighth of its size: every byte of its stream is still read, so a truncated one is
    found, at less than half the cost.

    Raises:
        BadImage: as `open_rgb`.
    """
    with opened(path, max_pixels) as image:
        facts = ImageFacts(image.width, image.height, image.mode, image.format or "")
        image.draft(None, (1, 1))
        image.load()
        return facts


@contextmanager
def opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """The file's header, within bounds; what Pillow raises until the block ends becomes BadImage."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadImage(path, "unreadable", "not a file")
        if found.st_size == 0:
            raise BadImage(path, "empty", "empty file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}"
                raise BadImage(
                    path, "too-large", f"too large: {size} pixels, over the limit of {max_pixels:,}"
                )
            if image.mode in _NO_RANGE:
                reason = f"32-bit pixels (mode {image.mode}) have no fixed range; save it with 8 or 16 bits"
                raise BadImage(path, "unreadable", reason)
            yield image
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, "missing", "no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise BadImage(path, "too-large", f"too large: over the limit of {limit:,} pixels") from None
    except UnidentifiedImageError:
        raise _unidentified(path) from None
    except MemoryError:
        raise BadImage(path, "too-large", "too large for this machine's memory") from None
    except Exception as error:  # noqa: BLE001 - on hostile bytes decoders raise anything
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "truncated" in text.lower() or _is_short(path):
            raise BadImage(path, "truncated", "truncated file") from None
        raise BadImage(path, "unreadable", f"unreadable: {text}") from None


def _head(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(12)


def _unidentified(path: str | Path) -> BadImage:
    """No decoder took the file: is it a broken image, or none?"""
    head = _head(path)
    name = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if name is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "WebP"
    if name is None:
        return BadImage(path, "not-an-image", "not an image")
    return BadImage(path, "truncated", f"truncated or damaged: starts like a {name} file and ends too soon")


def _is_short(path: str | Path) -> bool:
    """Whether a WebP file is shorter than its header says (its decoder does not say why it fails)."""
    head = _head(path)
    length = int.from_bytes(head[4:8], "little") + 8
    return head[:4] == b"RIFF" and Path(path).stat().st_size < length


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # noqa: BLE001 - a damaged EXIF block says nothing about the orientation; the pixels are fine
        return image
    return image


def rgb(image: Image.Image) -> Image.Image:
    """The loaded image in RGB, see `open_rgb`."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
