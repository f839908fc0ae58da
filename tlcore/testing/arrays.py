"""Small arrays with known structure, in the values that scorers, validators and plans are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.protocols import Evidence, TrainTask, ValidatorOutputs

__all__ = ["tiny_evidence", "tiny_outputs", "tiny_task"]


def tiny_evidence(
    images: int = 60, classes: int = 3, dim: int = 8, *, skill: float = 2.0, seed: int = 0
) -> Evidence:
    """Evidence of one candidate: Gaussian features [images, dim] whose class means lie `skill` apart.

    `skill=0` gives features that know nothing of the labels. Source probabilities [images, classes + 1]
    follow the labels in the same way. Moments by fold are there too.
    """
    from tlcore.features.folds import fold_moments
    from tlcore.features.moments import Moments

    rng = np.random.default_rng(seed)
    labels = np.arange(images, dtype=np.int64) % classes
    centres = skill * rng.normal(size=(classes, dim))
    features = (centres[labels] + rng.normal(size=(images, dim))).astype(np.float32)
    source = _softmax(skill * np.eye(classes + 1)[labels] + rng.normal(size=(images, classes + 1)))
    probabilities = source.astype(np.float32)
    moments = Moments.of(features, labels, classes, source_probabilities=probabilities)
    folds = fold_moments(features, labels, classes, probabilities)
    return Evidence(moments, labels, lambda: features, lambda: probabilities, seed, folds)


def tiny_outputs(
    images: int = 60, classes: int = 3, dim: int = 8, *, skill: float = 2.0, seed: int = 0
) -> ValidatorOutputs:
    """Outputs of a network on source and target validation images; `skill=0` guesses on both."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images, dtype=np.int64) % classes
    centres = skill * rng.normal(size=(classes, dim))
    features = [(centres[labels] + rng.normal(size=(images, dim))).astype(np.float32) for _ in range(2)]
    logits = [skill * np.eye(classes)[labels] + rng.normal(size=(images, classes)) for _ in range(2)]
    return ValidatorOutputs(
        target_probabilities=_softmax(logits[0]),
        source_probabilities=_softmax(logits[1]),
        source_labels=labels,
        target_features=features[0],
        source_features=features[1],
    )


def tiny_task(*, target: bool = False) -> TrainTask:
    """A task of 3 classes, 8 features and 24 labelled images; with `target`, 20 unlabelled ones."""
    return TrainTask(
        classes=("a", "b", "c"), feature_dim=8, source_train=24, target_train=20 if target else 0
    )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)
