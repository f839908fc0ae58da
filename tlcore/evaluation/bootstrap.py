"""Draws of images with replacement, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks", "counts_of"]

_BLOCK = 2_000_000  # drawn images held at once: 16 MB of indices


def blocks(n: int, replicates: int, seed: int, *, width: int = 1) -> Iterator[NDArray[np.int64]]:
    """Image positions [rows, n] in 0 … n-1, `replicates` rows in all; each row is held `width` times over."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // (n * max(1, width)))
    for start in range(0, replicates, rows):
        yield rng.integers(0, n, size=(min(rows, replicates - start), n))


def counts_of(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each image was drawn, [rows, n], from positions [rows, n]."""
    rows, n = drawn.shape
    flat = (drawn + np.arange(rows)[:, None] * n).ravel()
    return np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)
