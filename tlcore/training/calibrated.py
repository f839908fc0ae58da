"""One scale on logits, so that their softmax or sigmoid means something: found on held-out logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, log_softmax

__all__ = ["class_scale", "mean_log_loss", "tag_scale"]

Float = NDArray[np.float64]
DEFAULT = 10.0
"""Times the spread of the logits where no image can be asked: sure of the training images and no more."""
REACH = 1e4
"""Scales lie in 1 / REACH … REACH over the mean size of the logits: separable logits have no best one."""


def mean_log_loss(logits: Float, labels: NDArray[np.int64]) -> float:
    """-1/n sum_i log softmax(logits_i)[labels_i] of logits [n, K], in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def class_scale(
    logits: Float, labels: NDArray[np.int64], asked: NDArray[np.bool_], prior: Float | float = 0.0
) -> tuple[float, float]:
    """The scale a > 0 with the least mean log loss of softmax(a logits + prior), and that loss.

    The loss is convex in a, so that there is one best. A scale that would turn the order of the classes or wipe it out
    is never found: a is at least 0.01 over the mean size of the logits.

    Args:
        logits: held-out, float [n, K]. labels: [n]. prior: [K].
        asked: [n], the images that count. None of them: a scale by the size of the logits, and the loss log K.
    """
    size = float(np.abs(logits - logits.mean(1, keepdims=True)).mean()) or 1.0
    if not asked.any():
        return DEFAULT / size / logits.shape[1], float(np.log(logits.shape[1]))
    rows, truth = logits[asked], labels[asked]

    def loss(log_scale: float) -> float:
        return mean_log_loss(np.exp(log_scale) * rows + prior, truth)

    found = minimize_scalar(loss, bounds=(np.log(0.01 / size), np.log(100 / size)), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def tag_scale(outputs: Float, tags: Float) -> tuple[float, Float, float]:
    """The scale a of all tags and the offset c_k of each with the least mean binary log loss of sigmoid(a z_k + c_k), and
    that loss (Platt 2000, section 2, with one slope). outputs: held-out z [n, K]; tags: 0 or 1 [n, K]."""
    size = float(np.abs(outputs).mean()) or 1.0
    share = (tags.sum(0) + 0.5) / (len(tags) + 1)

    def loss(flat: Float) -> tuple[float, Float]:
        logits = flat[0] * outputs / size + flat[1:]
        value = -(tags * log_expit(logits) + (1 - tags) * log_expit(-logits)).mean()
        error = (np.exp(log_expit(logits)) - tags) / tags.size
        return float(value), np.append((error * outputs).sum() / size, error.sum(0))

    start = np.append(1.0, np.log(share / (1 - share)))
    bounds = [(0.01, 100.0), *((-20.0, 20.0) for _ in share)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(found.x[0] / size), np.asarray(found.x[1:]), float(found.fun)
