"""The images that a network finds hardest: wrong with confidence, or right without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlcore.values import TopLoss

__all__ = ["SHOWN", "top_losses"]

SHOWN = 12
"""How many are kept."""

_TINY = float(np.finfo(np.float32).tiny)


def top_losses(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    sample_ids: Sequence[str],
    uris: Sequence[str],
    limit: int = SHOWN,
) -> tuple[TopLoss, ...]:
    """The images with the largest -log p[label], largest first; of equal ones the earlier.

    probabilities: [n, K]; labels: int [n] in 0 … K-1. What float32 has rounded to 0 counts as its least number, so
    that a loss is at most 87.3.
    """
    likely = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = np.maximum(0.0, -np.log(np.maximum(likely, _TINY)))
    predicted = probabilities.argmax(axis=1) if len(labels) else labels
    return tuple(
        TopLoss(
            sample_id=sample_ids[i], uri=uris[i], label=classes[labels[i]], predicted=classes[predicted[i]],
            probability=float(probabilities[i, predicted[i]]), label_probability=float(likely[i]), loss=float(losses[i]),
        )
        for i in np.argsort(-losses, kind="stable")[:limit]
    )  # fmt: skip
