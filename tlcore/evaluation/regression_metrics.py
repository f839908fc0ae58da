"""Measures of predicted numbers on one split, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from tlcore.errors import GateError, UserError
from tlcore.evaluation.bootstrap import blocks
from tlcore.evaluation.comparison import MEAN_ABSOLUTE_ERROR, compare_scores
from tlcore.evaluation.intervals import percentile
from tlcore.values import Comparison, Interval, NumberMetrics, NumberMistake

__all__ = ["MISTAKES", "POINTS", "compare_numbers", "measure_numbers", "r_squared"]

MISTAKES = 12
"""Predictions that are kept, those furthest from the truth first."""
POINTS = 500
"""Pairs of truth and prediction that are kept for a figure."""

Float = NDArray[np.float64]


def measure_numbers(
    outputs: ArrayLike,
    targets: ArrayLike,
    *,
    sample_ids: Sequence[str],
    uris: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
) -> NumberMetrics:
    """R^2, mean absolute error and root mean squared error (scikit-learn) of outputs [n] or [n, 1] against targets [n].

    Intervals are 95 % percentile intervals of a bootstrap over images. Resamples whose true numbers are all the same
    have no R^2 and are left out of its interval; where none is left it is the value itself.

    Raises:
        UserError: shapes that do not fit, no image, a target that is not finite.
        GateError: outputs that are not finite.
    """
    predicted, truth = _checked(outputs, targets, sample_ids, uris)
    n = len(truth)
    draws: list[list[Float]] = [[], [], []]
    for drawn in blocks(n, replicates, seed, width=8):
        y, f = truth[drawn].T, predicted[drawn].T  # a resample is an output of its own
        if n > 1:
            varies = np.ptp(y, axis=0) > 0
            if varies.any():
                draws[0].append(r2_score(y[:, varies], f[:, varies], multioutput="raw_values"))
        draws[1].append(mean_absolute_error(y, f, multioutput="raw_values"))
        draws[2].append(root_mean_squared_error(y, f, multioutput="raw_values"))
    r2 = r_squared(truth, predicted)
    absolute = float(mean_absolute_error(truth, predicted))
    squared = float(root_mean_squared_error(truth, predicted))
    return NumberMetrics(
        images=n,
        r2=r2,
        r2_ci=_interval(r2, draws[0]),
        mean_absolute_error=absolute,
        mean_absolute_error_ci=_interval(absolute, draws[1]),
        root_mean_squared_error=squared,
        root_mean_squared_error_ci=_interval(squared, draws[2]),
        mean=float(truth.mean()),
        deviation=float(truth.std()),
        points=_points(truth, predicted, seed),
        mistakes=_mistakes(truth, predicted, sample_ids, uris),
        warnings=() if np.ptp(truth) > 0 else ("all test images have the same number: R² says nothing",),
    )


def r_squared(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """1 - sum (y - f)^2 / sum (y - mean y)^2. Of truths that do not differ: 1 where all answers are exact, else 0."""
    if len(truth) < 2:
        return float(np.array_equal(truth, predicted))
    return float(r2_score(np.asarray(truth, np.float64), np.asarray(predicted, np.float64)))


def compare_numbers(
    result: ArrayLike,
    baseline: ArrayLike,
    targets: ArrayLike,
    name: str,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """The baseline's mean absolute error, and by how much the result's is smaller: `compare_scores` of -|f_i - y_i|.

    Args:
        result, baseline: outputs [n] or [n, 1].

    Raises:
        UserError: arrays of different length, or fewer than two images.
    """
    truth = np.asarray(targets, np.float64).ravel()
    answers = [np.asarray(one, np.float64).ravel() for one in (result, baseline)]
    if {one.size for one in answers} != {truth.size}:
        sizes = " and ".join(str(one.size) for one in answers)
        raise UserError(f"cannot pair {sizes} answers of {name} on {truth.size} images", where="evaluation")
    ours, theirs = (-np.abs(one - truth) for one in answers)
    found = compare_scores(ours, theirs, name, replicates=replicates, seed=seed)
    return found.model_copy(update={"accuracy": -found.accuracy, "measure": MEAN_ABSOLUTE_ERROR})


def _interval(value: float, draws: list[Float]) -> Interval:
    return percentile(np.concatenate(draws)) if draws else Interval(low=value, high=value)


def _points(truth: Float, predicted: Float, seed: int) -> tuple[tuple[float, float], ...]:
    rows = np.arange(len(truth))
    if len(rows) > POINTS:
        rows = np.sort(np.random.default_rng([seed, 3]).choice(rows, POINTS, replace=False))
    return tuple((float(truth[row]), float(predicted[row])) for row in rows)


def _mistakes(
    truth: Float, predicted: Float, sample_ids: Sequence[str], uris: Sequence[str]
) -> tuple[NumberMistake, ...]:
    error = np.abs(predicted - truth)
    worst = [int(i) for i in np.argsort(-error, kind="stable")[:MISTAKES] if error[i] > 0]
    return tuple(
        NumberMistake(
            sample_id=sample_ids[i], uri=uris[i], label=float(truth[i]), predicted=float(predicted[i])
        )
        for i in worst
    )


def _checked(
    outputs: ArrayLike, targets: ArrayLike, sample_ids: Sequence[str], uris: Sequence[str]
) -> tuple[Float, Float]:
    predicted, truth = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.ndim != 1 or not predicted.shape == truth.shape == (len(sample_ids),) == (len(uris),):
        raise UserError(
            f"outputs {list(predicted.shape)}, targets {list(truth.shape)}, {len(sample_ids)} sample ids, "
            f"{len(uris)} uris",
            where="evaluation",
        )
    if not len(truth):
        raise UserError(
            "the test split holds no labelled image",
            where="evaluation",
            hint="add labelled test images, or let the run make the splits",
        )
    if not np.isfinite(truth).all():
        i = int(np.flatnonzero(~np.isfinite(truth))[0])
        raise UserError(
            f"the label of {sample_ids[i]} is {truth[i]}",
            where="evaluation",
            hint="leave unlabelled images out of the evaluation",
        )
    fine = np.isfinite(predicted)
    if not fine.all():
        i = int(np.flatnonzero(~fine)[0])
        raise GateError(
            f"the network gives {predicted[i]} for {sample_ids[i]} ({int((~fine).sum())} of {len(fine)} images)",
            where="evaluation",
            hint="training diverged or the weights are damaged: try a lower learning rate, then run again",
        )
    return predicted, truth
