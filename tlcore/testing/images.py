"""A small image folder whose classes can be told apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["tiny_images"]


def tiny_images(
    folder: Path,
    classes: Sequence[str] = ("circle", "square"),
    per_class: int = 8,
    *,
    side: int = 32,
    seed: int = 0,
) -> Path:
    """Write RGB PNG files of side x side pixels to folder/CLASS/CLASS-000.png, …; returns `folder`.

    A class is a hue of its own and a bar at an angle of its own; noise makes every file's bytes differ.
    Equal arguments give equal files.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    for code, name in enumerate(classes):
        angle = np.pi * code / len(classes)
        bar = np.abs(x * np.sin(angle) - y * np.cos(angle)) < 0.25
        colour = 200 * np.array(colorsys.hsv_to_rgb(code / len(classes), 0.8, 1.0))
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = np.where(bar[..., None], 230.0, colour) + rng.normal(0, 12, (side, side, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{name}-{number:03d}.png")
    return folder
