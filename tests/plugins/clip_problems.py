"""Made-up joint spaces of images and texts for heads that read class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.training.plan import HeadProblem, Solved

CLASSES = ("cat", "dog", "owl")


def text_tower(vectors: dict[str, NDArray[np.float64]]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """A text's embedding is the vector of the class that it names, at unit length."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        found = [next(vector for name, vector in vectors.items() if name in text) for text in texts]
        rows = np.stack(found)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    return embed


def problem_of(
    labels: Sequence[int], seed: int = 0, dim: int = 6, noise: float = 0.3, apart: float = 0.0, classes: Sequence[str] = CLASSES
) -> HeadProblem:  # fmt: skip
    """Images near a direction of their class; texts near it too, `apart` being how far they are off."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(42).normal(size=(len(classes), dim))
    images = 3 * (truth[list(labels)] + noise * rng.normal(size=(len(labels), dim)))
    off = apart * np.random.default_rng(43).normal(size=truth.shape)
    vectors = {name: truth[number] + off[number] for number, name in enumerate(classes)}
    return HeadProblem(
        images.astype(np.float32),
        np.array(labels, dtype=np.int64),
        tuple(classes),
        seed,
        text=text_tower(vectors),
    )


def logits_of(solved: Solved, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """By the formula of the unit head, written out."""
    weight, bias, centre = (np.asarray(solved.tensors[name]) for name in ("weight", "bias", "centre"))
    assert solved.head.kind == "unit" and not centre.any()
    rows = features.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True) @ weight.T + bias)
