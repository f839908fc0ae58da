"""How good answers are on validation images: what epochs, strategies and candidates are chosen by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError
from tlcore.evaluation.intervals import wilson
from tlcore.training.job import Measured
from tlcore.values import Interval, Task

__all__ = ["headline", "interval_of", "measured"]


def headline(task: Task) -> str:
    """Name of the first measure in `Measured.shown`: the one that choices are made by, higher is better."""
    if task == "regression":
        return "validation_r2"
    return "validation_map" if task == "multi-label" else "validation_accuracy"


def measured(outputs: NDArray[np.floating[Any]], targets: NDArray[Any], task: Task) -> Measured:
    """One look at the answers `outputs` [n, K] (as `tlcore.training.outputs` gives them) to labelled images.

    Classes: (accuracy, -loss), the loss being the mean of -log p of the true class. Numbers: (R^2, -mean absolute
    error). Tags: (mean average precision, -loss), the loss being the mean binary cross-entropy. Answers that are not
    finite are worse than any other, and shown as NaN.

    Args:
        targets: int64 [n]; float [n]; float [n, K] of 0 and 1 (`Dataset.targets` of labelled rows).

    Raises:
        PluginError: no images, or shapes that do not fit.
    """
    if len(targets) == 0 or len(outputs) != len(targets) or outputs.ndim != 2:
        raise PluginError(f"{list(outputs.shape)} answers for {len(targets)} labelled images")
    if task == "classification":
        return _classes(outputs, targets)
    first, second = headline(task), "validation_mae" if task == "regression" else "validation_loss"
    if not np.isfinite(outputs).all():
        return Measured((-math.inf, -math.inf), {first: math.nan, second: math.nan})
    good, bad = _numbers(outputs, targets) if task == "regression" else _tags(outputs, targets)
    return Measured((good, -bad), {first: good, second: bad})


def _classes(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> Measured:
    likely = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    accuracy = float((probabilities.argmax(1) == labels).mean())
    loss = float(-np.log(np.maximum(likely, 1e-12)).mean())
    return Measured((accuracy, -loss), {"validation_accuracy": accuracy, "validation_loss": loss})


def _numbers(outputs: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    from sklearn.metrics import mean_absolute_error

    from tlcore.evaluation.regression_metrics import r_squared

    return r_squared(truth, outputs[:, 0]), float(mean_absolute_error(truth, outputs[:, 0]))


def _tags(probabilities: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    from sklearn.metrics import log_loss

    from tlcore.evaluation.tag_metrics import average_precisions

    loss = log_loss(truth.ravel(), probabilities.ravel().astype(np.float64), labels=[0, 1])
    found = average_precisions(truth, probabilities)
    return float(np.mean(list(found.values()))) if found else 0.0, float(loss)


def interval_of(
    outputs: NDArray[np.float32], targets: NDArray[Any], task: Task, seed: int, replicates: int = 200
) -> Interval | None:
    """95 % interval of the validation measure over images: Wilson's of an accuracy, else of bootstrap draws."""
    count = len(targets)
    if count < 2:
        return None
    if task == "classification":
        return wilson(float((outputs.argmax(1) == targets).mean()), count)
    rng = np.random.default_rng([seed, 11])
    draws = []
    for _ in range(replicates):
        rows = rng.integers(0, count, count)
        draws.append(measured(outputs[rows], targets[rows], task).choice[0])
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(low=float(low), high=float(high))
