"""Procedural images for source tasks that have nothing to do with digits: outlines of shapes, and textures.

Bright on black, grayscale, 32 x 32, uint8 [n, 32, 32], and the same for the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tlcore.demo.glyphs import CANVAS, SIDE, Distortion, distort

__all__ = ["SHAPES", "TEXTURES", "shapes", "textures"]

Field = NDArray[np.float64]


def _polygon(corners: int, *, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners on the unit circle; with inner < 1 a star whose notches lie at that radius."""
    points = corners * (2 if inner < 1 else 1)
    radius = [inner if inner < 1 and number % 2 else 1.0 for number in range(points)]
    angle = [2 * math.pi * number / points - math.pi / 2 for number in range(points)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radius, angle, strict=True)]


_CROSS = [
    (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
    (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
]  # fmt: skip
_ARROW = [(-1, -0.3), (0.1, -0.3), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.3), (-1, 0.3)]
_ARCH = [(math.cos(a), 0.6 - 1.5 * math.sin(a)) for a in np.linspace(0, math.pi, 24)]

MILD = Distortion(rotation=0, shear=0.1, bend=0.02, thickness=0.3, coarse=0.2)
"""Shapes bend less than glyphs: a bent hexagon is a circle."""

SHAPES: dict[str, list[tuple[float, float]]] = {
    "arch": _ARCH,
    "arrow": _ARROW,
    "circle": _polygon(48),
    "cross": _CROSS,
    "hexagon": _polygon(6),
    "pentagon": _polygon(5),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _polygon(5, inner=0.4),
    "triangle": _polygon(3),
    "zigzag": [(-1, -0.8), (-0.5, 0.4), (0, -0.8), (0.5, 0.4), (1, -0.8), (0.5, 0.9), (0, -0.2), (-0.5, 0.9)],
}
"""Corners of each class, in units of the shape's radius."""


def shapes(per_class: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Outlined or filled shapes in random rotation, distorted as glyphs are.

    Returns:
        uint8 [n, 32, 32] and int64 [n]; the label is the position in `SHAPES`.
    """
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(SHAPES)), per_class)
    corners = list(SHAPES.values())
    canvases = np.stack([_shape(corners[label], generator) for label in labels])
    return distort(canvases, seed=int(generator.integers(2**62)), distortion=MILD), labels


def _shape(corners: list[tuple[float, float]], generator: np.random.Generator) -> NDArray[np.uint8]:
    angle, size = generator.uniform(-0.6, 0.6), CANVAS * generator.uniform(0.22, 0.4)
    cos, sin = math.cos(angle) * size, math.sin(angle) * size
    points = [(CANVAS / 2 + x * cos - y * sin, CANVAS / 2 + x * sin + y * cos) for x, y in corners]
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    if generator.random() < 0.3:
        draw.polygon(points, fill=255)
    else:
        draw.line(
            [*points, points[0], points[1]], fill=255, width=int(generator.integers(2, 7)), joint="curve"
        )
    return np.asarray(canvas)


def _stripes(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(x + phase))


def _checks(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sign(np.sin(x + phase) * np.sin(y)))


def _dots(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(x + phase) * np.sin(y) * 2 - 0.6)


def _rings(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(np.hypot(x, y) + phase))


def _rays(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(6 * np.arctan2(y, x) + phase))


def _waves(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(x + 2 * np.sin(y / 2) + phase))


def _bricks(x: Field, y: Field, phase: float) -> Field:
    row = np.floor(y / np.pi)
    wall = (np.abs(np.sin(y)) < 0.35) | (np.abs(np.sin((x + phase + row * np.pi) / 2)) < 0.2)
    return np.where(wall, 1.0, -1.0)


def _spiral(x: Field, y: Field, phase: float) -> Field:
    return np.asarray(np.sin(np.hypot(x, y) + 2 * np.arctan2(y, x) + phase))


TEXTURES: dict[str, Callable[[Field, Field, float], Field]] = {
    "bricks": _bricks,
    "checks": _checks,
    "dots": _dots,
    "rays": _rays,
    "rings": _rings,
    "spiral": _spiral,
    "stripes": _stripes,
    "waves": _waves,
}
"""Each class as a brightness in [-1, 1] over rotated, scaled coordinates and a phase."""


def textures(per_class: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Periodic patterns of random direction, period (6 to 14 pixels), phase, contrast and noise.

    Returns:
        uint8 [n, 32, 32] and int64 [n]; the label is the position in `TEXTURES`.
    """
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(TEXTURES)), per_class)
    patterns = list(TEXTURES.values())
    return np.stack([_texture(patterns[label], generator) for label in labels]), labels


def _texture(
    pattern: Callable[[Field, Field, float], Field], generator: np.random.Generator
) -> NDArray[np.uint8]:
    centre = SIDE / 2 + generator.normal(0, 3, 2)
    row, column = np.mgrid[:SIDE, :SIDE]
    angle, turn = generator.uniform(0, math.pi), 2 * math.pi / generator.uniform(6, 14)
    down, right = (row - centre[0]) * turn, (column - centre[1]) * turn
    x = right * math.cos(angle) - down * math.sin(angle)
    y = right * math.sin(angle) + down * math.cos(angle)
    bright = 0.5 + 0.5 * np.clip(pattern(x, y, generator.uniform(0, 2 * math.pi)), -1, 1)
    bright = bright * generator.uniform(0.5, 1) + generator.normal(
        0, generator.uniform(0, 0.12), bright.shape
    )
    return np.asarray(np.clip(bright * 255, 0, 255).astype(np.uint8))
