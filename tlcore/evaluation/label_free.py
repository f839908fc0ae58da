"""What predictions say about themselves when there are no labels.

All take P, float64 [n, K]: rows are class probabilities. Logarithms are natural: values are in nats.
Cheap to import: strategies use it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import GateError, UserError

__all__ = [
    "batch_nuclear_norm",
    "diversity",
    "entropy",
    "information_maximisation",
    "predicted_classes",
    "top_share",
]


def entropy(probabilities: NDArray[np.floating]) -> float:
    """Mean entropy of the rows, -1/n sum_i sum_k P_ik log P_ik: 0 (certain) … log K (knows nothing)."""
    p = _checked(probabilities)
    return float(-_p_log_p(p).sum() / len(p))


def diversity(probabilities: NDArray[np.floating]) -> float:
    """Entropy of the mean row, H(1/n sum_i P_i): 0 (all mass on one class) … log K (classes used evenly)."""
    return float(-_p_log_p(_checked(probabilities).mean(axis=0)).sum())


def information_maximisation(probabilities: NDArray[np.floating]) -> float:
    """H(mean P) - mean H(P_i): the mutual information of image and predicted class, 0 … log K, higher is better.

    Certain about each image and diverse over all (Krause et al. 2010, eq. 4; Liang et al. 2020, eq. 3).
    """
    return diversity(probabilities) - entropy(probabilities)


def batch_nuclear_norm(probabilities: NDArray[np.floating]) -> float:
    """Sum of the singular values of P, over n (Cui et al. 2020, eq. 8): grows with certainty and diversity.

    At most sqrt(K / n) for n >= K.
    """
    p = _checked(probabilities)
    return float(np.linalg.svd(p, compute_uv=False).sum() / len(p))


def predicted_classes(probabilities: NDArray[np.floating]) -> int:
    """How many classes occur among the most probable ones."""
    return len(np.unique(_checked(probabilities).argmax(axis=1)))


def top_share(probabilities: NDArray[np.floating]) -> float:
    """Share of the rows whose most probable class is the most frequent one: 1/K (even) … 1 (collapsed)."""
    predicted = _checked(probabilities).argmax(axis=1)
    return float(np.bincount(predicted).max() / len(predicted))


def _p_log_p(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p log p with 0 log 0 = 0."""
    return p * np.log(np.where(p > 0, p, 1.0))


def _checked(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not p.size:
        raise UserError(f"probabilities are {list(p.shape)}, not [images, classes]", where="label-free score")
    if not np.isfinite(p).all() or p.min() < 0:
        row = int(np.flatnonzero(~(np.isfinite(p) & (p >= 0)).all(axis=1))[0])
        raise GateError(
            f"the network gives no probabilities for image {row} of {len(p)}",
            where="label-free score",
            hint="training diverged: try a lower learning rate",
        )
    return p
