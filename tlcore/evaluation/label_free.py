"""What predictions say about themselves when there are no labels.

P is float64 [n, K]: rows are class probabilities. Logarithms are natural: values are in nats.
Cheap to import: strategies use it.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import GateError, UserError

__all__ = [
    "batch_nuclear_norm",
    "cluster_agreement",
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


def cluster_agreement(
    features: NDArray[np.floating], predictions: NDArray[np.int64], clusters: int, starts: int = 3
) -> float:
    """Adjusted mutual information of k-means clusters of features [n, d] and predictions int [n], at least 0: 1 where
    the two agree, 0 where no better than chance (Vinh, Epps & Bailey 2010, normalised by the mean of the entropies).

    0 also where all images are predicted alike or all features are equal: there is nothing to agree on. The clusters
    start from a fixed seed.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_mutual_info_score
    from threadpoolctl import threadpool_limits

    if len(np.unique(predictions)) < 2 or not np.ptp(features, axis=0).any():
        return 0.0
    # sums over threads come in any order: one thread, so that the same features give the same clusters
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct features than clusters
        found = KMeans(min(clusters, len(features)), n_init=starts, random_state=0).fit_predict(features)
    return max(0.0, float(adjusted_mutual_info_score(found, predictions)))


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
